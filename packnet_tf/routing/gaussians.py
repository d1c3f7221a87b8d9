"""Gaussians of the features of each task: fitting, and the scores of examples.

A task's Gaussian has full variance along a few principal directions and equal variance along all
others (probabilistic PCA). So a task takes few numbers, and the distance to an image counts what is
unusual for the task in any direction, also in one that no task uses.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

DIRECTIONS = 16  # principal directions per task, at most
EXAMPLES_PER_DIRECTION = 5  # fewer examples than this for each do not determine them
REJECTED = 0.01  # share of a task's own held-out examples below its threshold
LEAST = 1e-7  # smallest variance, of examples that are all the same
ROUNDING = 1e-3  # of float16 directions: a smaller share of the variance outside them is unknown


@dataclasses.dataclass(frozen=True)
class TaskGaussian:
    """The distribution of a task's features.

    Attributes:
        mean: float16 (n,).
        directions: float16 (n, k), the principal directions, orthonormal but for rounding.
        variances: float32 (k,), along these.
        noise: the variance along each other direction.
        threshold: log-likelihood below which an example is not the task's.
        spread: difference of the median log-likelihood of its own examples and the threshold.
        examples: number of examples it was fitted on, those for calibration included.
    """

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    noise: float
    threshold: float
    spread: float
    examples: int

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        arrays = (self.mean, self.directions, self.variances)
        return sum(array.nbytes for array in arrays) + 4 * np.dtype(np.float32).itemsize


def fit_gaussian(features: np.ndarray, held_out: np.ndarray) -> TaskGaussian:
    """Fits the Gaussian of a task.

    Mean and directions come from `features`. The variances come from `held_out`: along directions
    that were chosen on the same examples, they would be too large, and the noise too small.

    Args:
        features: float array (examples, n), at least two examples.
        held_out: other examples, at least two, for the variances and the threshold.

    Example:
        >>> features = np.array([[1.0, 0.0], [3.0, 0.0]])
        >>> gaussian = fit_gaussian(features, np.array([[1.0, 1.0], [3.0, -1.0]]))
        >>> gaussian.mean.tolist(), gaussian.noise
        ([2.0, 0.0], 1.0)

    Source: Tipping & Bishop, Probabilistic Principal Component Analysis, JRSS B 1999.
    """
    features, held_out = features.astype(np.float64), held_out.astype(np.float64)
    size = features.shape[1]
    count = min(DIRECTIONS, len(features) // EXAMPLES_PER_DIRECTION, size - 1)
    mean = features.mean(axis=0).astype(np.float16)
    directions = principal_directions(features - mean, count).astype(np.float16)
    along, rest = _projected(held_out, mean, directions)
    total = rest.mean() + np.square(along).sum(axis=1).mean()
    noise = np.float32(max(rest.mean() / (size - count), ROUNDING * total / size, LEAST))
    variances = np.maximum(np.square(along).mean(axis=0), noise).astype(np.float32)
    plain = TaskGaussian(mean, directions, variances, float(noise), 0.0, 1.0, 0)
    [own] = log_likelihoods(held_out, [plain]).T
    threshold, median = np.quantile(own, REJECTED), np.median(own)
    return dataclasses.replace(
        plain,
        threshold=float(np.float32(threshold)),
        spread=float(np.float32(max(median - threshold, LEAST))),
        examples=len(features) + len(held_out),
    )


def principal_directions(centred: np.ndarray, count: int) -> np.ndarray:
    """Returns the directions of largest variance, (n, count), the largest first.

    Args:
        centred: float array (examples, n), with the mean 0.
        count: their number; directions without variance are 0.

    Example:
        >>> abs(principal_directions(np.array([[0.0, 2.0], [0.0, -2.0]]), 1)).tolist()
        [[0.0], [1.0]]
    """
    examples, size = centred.shape
    if examples >= size:
        return np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    values, vectors = np.linalg.eigh(centred @ centred.T)  # smaller, and has the same directions
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    lengths = np.sqrt(np.maximum(values, 0.0))
    used = lengths > 1e-7 * max(lengths.max(initial=0.0), 1e-30)
    return np.where(used, centred.T @ vectors / np.where(used, lengths, 1.0), 0.0)


def log_likelihoods(features: np.ndarray, gaussians: Sequence[TaskGaussian]) -> np.ndarray:
    """Returns log-likelihoods without their common constant, float64 (examples, gaussians).

    Args:
        features: float array (examples, n).
        gaussians: one per task.

    Example:
        >>> one = TaskGaussian(np.zeros(2), np.zeros((2, 0)), np.zeros(0), 1.0, 0.0, 1.0, 4)
        >>> log_likelihoods(np.array([[3.0, 4.0]]), [one]).tolist()
        [[-12.5]]
    """
    columns = []
    for gaussian in gaussians:
        along, rest = _projected(features, gaussian.mean, gaussian.directions)
        variances = gaussian.variances.astype(np.float64)
        distances = (np.square(along) / variances).sum(axis=1) + rest / gaussian.noise
        others = features.shape[1] - len(variances)
        columns.append(-0.5 * (distances + log_volume(gaussian, others)))
    return np.stack(columns, axis=1)


def log_volume(gaussian: TaskGaussian, others: int) -> float:
    """Returns the logarithm of the determinant of a covariance.

    Args:
        gaussian: the Gaussian.
        others: number of directions that have the variance `noise`.
    """
    variances = gaussian.variances.astype(np.float64)
    return float(np.log(variances).sum() + others * np.log(gaussian.noise))


def scores_of(likelihoods: np.ndarray, gaussians: Sequence[TaskGaussian]) -> np.ndarray:
    """Shifts and scales the log-likelihoods of each example by its most likely task's calibration.

    The largest score is that of the most likely task. It is 1 for an example that is as usual as
    the median of the task's own, and below 0 for one that is less likely than 99 % of them.

    Args:
        likelihoods: (examples, tasks), see `log_likelihoods`.
        gaussians: one per task.

    Returns:
        float32 (examples, tasks).
    """
    best = likelihoods.argmax(axis=1)
    thresholds = np.array([gaussian.threshold for gaussian in gaussians])[best]
    spreads = np.array([gaussian.spread for gaussian in gaussians])[best]
    return ((likelihoods - thresholds[:, None]) / spreads[:, None]).astype(np.float32)


def _projected(
    features: np.ndarray, mean: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates along directions (examples, k), and the squared length of the rest."""
    centred = features.astype(np.float64) - mean
    along = centred @ directions.astype(np.float64)
    rest = np.square(centred).sum(axis=1) - np.square(along).sum(axis=1)
    return along, np.maximum(rest, 0.0)
