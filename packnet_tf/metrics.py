"""Metrics of learning a sequence of tasks: pure functions of accuracies.

`A[i, j]` is the test accuracy on task j after learning task i, both counted from 0. Entries of
tasks that are not learnt yet (above the diagonal) may be NaN; they are ignored.
"""

from collections.abc import Sequence

import numpy as np


def average_accuracy(matrix: np.ndarray) -> float:
    """Computes ACC: the mean accuracy of all tasks after the last one is learnt.

    Args:
        matrix: float array (tasks, tasks), accuracies `A[i, j]` from 0 to 1.

    Returns:
        The mean of the last row, 0 to 1.

    Raises:
        ValueError: `matrix` is not such a matrix.

    Example:
        >>> average_accuracy([[0.9, np.nan], [0.7, 0.8]])
        0.75

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory, 2017, section 2.
    """
    return float(np.mean(check_matrix(matrix)[-1]))


def backward_transfer(matrix: np.ndarray) -> float:
    """Computes BWT: the mean change of earlier tasks' accuracies since each was learnt.

    Args:
        matrix: float array (tasks, tasks), accuracies `A[i, j]` from 0 to 1.

    Returns:
        The mean of `A[T-1, j] - A[j, j]` over all tasks but the last; negative if tasks were
        forgotten; 0 for a single task.

    Raises:
        ValueError: `matrix` is not such a matrix.

    Example:
        >>> round(backward_transfer([[0.9, np.nan], [0.7, 0.8]]), 3)
        -0.2

    Source: Lopez-Paz & Ranzato 2017, section 2.
    """
    matrix = check_matrix(matrix)
    changes = (matrix[-1] - np.diag(matrix))[:-1]
    return float(np.mean(changes)) if changes.size else 0.0


def forgetting(matrix: np.ndarray) -> list[float]:
    """Computes how far each task is below its best accuracy.

    Args:
        matrix: float array (tasks, tasks), accuracies `A[i, j]` from 0 to 1.

    Returns:
        Per task, the maximum over i of `A[i, j] - A[T-1, j]`; never negative, 0 for the last.

    Raises:
        ValueError: `matrix` is not such a matrix.

    Example:
        >>> [round(value, 3) for value in forgetting([[0.9, np.nan], [0.7, 0.8]])]
        [0.2, 0.0]

    Source: Chaudhry et al., Riemannian Walk, 2018, section 3, the last row included.
    """
    matrix = check_matrix(matrix)
    best = [matrix[j:, j].max() for j in range(len(matrix))]
    return [float(value) for value in np.array(best) - matrix[-1]]


def gaps(accuracy: Sequence[float], individual: Sequence[float]) -> list[float]:
    """Computes the price of sharing a network: the accuracy lost against individual networks.

    Args:
        accuracy: each task's accuracy when it was learnt (the diagonal), 0 to 1.
        individual: accuracies of individual networks for the same tasks, in the same order.

    Returns:
        Per task, `individual - accuracy`.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> [round(gap, 3) for gap in gaps([0.85, 0.8], [0.875, 0.79])]
        [0.025, -0.01]
    """
    if len(accuracy) != len(individual):
        raise ValueError(
            f"{len(accuracy)} accuracies and {len(individual)} of individual networks; give one of "
            "each per task, in the same order."
        )
    return [float(other - own) for own, other in zip(accuracy, individual, strict=True)]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Computes the mean and the standard deviation over seeds.

    Args:
        values: one value per seed.

    Returns:
        The mean, and the sample standard deviation (divided by n - 1); 0 for a single value.

    Raises:
        ValueError: there are no values.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    numbers = np.asarray(values, float)
    if numbers.size == 0:
        raise ValueError("There are no values to take the mean of.")
    return float(numbers.mean()), float(numbers.std(ddof=1)) if numbers.size > 1 else 0.0


def check_matrix(matrix: np.ndarray) -> np.ndarray:
    """Checks that a matrix is square and that its lower triangle holds accuracies.

    Args:
        matrix: array (tasks, tasks).

    Returns:
        The matrix as a float array.

    Raises:
        ValueError: it is not square, or a value on or below the diagonal is not from 0 to 1.

    Example:
        >>> check_matrix([[0.9, np.nan], [0.7, 0.8]]).shape
        (2, 2)
    """
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(
            "The accuracies of T tasks are a matrix of T rows and T columns, A[i, j] that of task "
            f"j after task i; got shape {matrix.shape}."
        )
    seen = matrix[np.tril_indices(len(matrix))]
    if not np.all((seen >= 0) & (seen <= 1)):
        raise ValueError(
            "Accuracies on and below the diagonal are numbers from 0 to 1; got "
            f"{seen[~((seen >= 0) & (seen <= 1))][0]}. Divide percentages by 100."
        )
    return matrix
