"""The definitions of accuracy, transfer, forgetting and gap, on matrices worked out by hand."""

import numpy as np
import pytest

from packnet_tf.metrics import (
    average_accuracy,
    backward_transfer,
    forgetting,
    gaps,
    mean_and_deviation,
)

NAN = np.nan
# The second task costs the first a quarter; the third gives half of that back.
THREE = [[0.75, NAN, NAN], [0.5, 1.0, NAN], [0.625, 0.5, 0.25]]


def test_acc_is_the_mean_of_the_last_row():
    assert average_accuracy(THREE) == (0.625 + 0.5 + 0.25) / 3
    assert average_accuracy([[0.5]]) == 0.5


def test_bwt_compares_the_last_row_with_the_diagonal_without_the_last_task():
    assert backward_transfer(THREE) == ((0.625 - 0.75) + (0.5 - 1.0)) / 2
    assert backward_transfer([[0.5, NAN], [0.75, 0.25]]) == 0.25  # it can be a gain
    assert backward_transfer([[0.5]]) == 0.0


def test_forgetting_is_measured_from_the_best_a_task_ever_was():
    assert forgetting(THREE) == [0.125, 0.5, 0.0]
    # Best in the middle, and best at the end: a gain is no negative forgetting.
    assert forgetting([[0.5, NAN, NAN], [0.75, 0.5, NAN], [0.625, 1.0, 0.5]]) == [0.125, 0.0, 0.0]


def test_a_matrix_that_does_not_change_forgets_exactly_nothing():
    still = [[0.9, NAN, NAN], [0.9, 0.8, NAN], [0.9, 0.8, 0.7]]
    assert backward_transfer(still) == 0.0
    assert forgetting(still) == [0.0, 0.0, 0.0]


def test_what_is_above_the_diagonal_does_not_count():
    changed = np.array(THREE)
    changed[0, 1:] = 0.125
    assert backward_transfer(changed) == backward_transfer(THREE)
    assert forgetting(changed) == forgetting(THREE)


def test_the_gap_is_what_individual_networks_do_better():
    assert gaps([0.75, 0.5], [0.875, 0.25]) == [0.125, -0.25]
    with pytest.raises(ValueError) as error:
        gaps([0.75], [0.875, 0.25])
    assert str(error.value) == (
        "1 accuracies and 2 of individual networks; give one of each per task, in the same order."
    )


def test_the_deviation_is_that_of_a_sample():
    assert mean_and_deviation([1.0, 3.0]) == (2.0, 2.0**0.5)
    assert mean_and_deviation([0.25]) == (0.25, 0.0)
    with pytest.raises(ValueError, match="There are no values to take the mean of"):
        mean_and_deviation([])


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (
            [[0.5, 0.5]],
            "The accuracies of T tasks are a matrix of T rows and T columns, A[i, j] that of task "
            "j after task i; got shape (1, 2).",
        ),
        (
            [[90.0]],
            "Accuracies on and below the diagonal are numbers from 0 to 1; got 90.0. Divide "
            "percentages by 100.",
        ),
        (
            [[0.5, NAN], [NAN, 0.5]],
            "Accuracies on and below the diagonal are numbers from 0 to 1; got nan. Divide "
            "percentages by 100.",
        ),
    ],
)
def test_what_is_no_matrix_of_accuracies_is_refused(matrix, text):
    for measure in (average_accuracy, backward_transfer, forgetting):
        with pytest.raises(ValueError) as error:
            measure(matrix)
        assert str(error.value) == text
