"""Masks of scores, on arrays worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from packnet_tf.apps.research.methods.rivals.masks import (
    at_least,
    signed_constants,
    straight_through,
    top_share,
)


@pytest.mark.parametrize(
    ("share", "chosen"),
    [
        (0.0, [[0, 0, 0], [0, 0, 0]]),
        (0.2, [[0, 0, 0], [0, 1, 0]]),  # round(1.2) = 1
        (0.5, [[1, 0, 1], [0, 1, 0]]),  # of four equal scores, the first two in C order
        (0.85, [[1, 0, 1], [1, 1, 1]]),
        (1.0, [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_exactly_the_share_of_highest_scores_is_chosen_and_ties_by_place(share, chosen):
    scores = tf.constant([[0.25, -1.0, 0.25], [0.25, 2.0, 0.25]])
    assert np.array_equal(tf.function(top_share)(scores, share), np.array(chosen, bool))


def test_equal_scores_of_both_signs_of_zero_are_one_tie():
    assert np.array_equal(top_share(tf.constant([-0.0, 0.0, -0.0, 0.0]), 0.5), [1, 1, 0, 0])


def test_the_threshold_itself_is_chosen():
    assert np.array_equal(at_least(tf.constant([0.0049, 0.005, 0.01])), [False, True, True])


def test_a_score_has_the_gradient_of_its_mask_and_only_chosen_values_have_one():
    values, scores = tf.Variable([1.0, -2.0, 3.0]), tf.Variable([0.5, 0.1, 0.7])
    with tf.GradientTape() as tape:
        kernel = straight_through(values, scores, top_share(scores, 0.67))
        loss = tf.reduce_sum(kernel * [10.0, 20.0, 30.0])
    assert np.array_equal(kernel, [1.0, 0.0, 3.0])
    of_values, of_scores = tape.gradient(loss, [values, scores])
    assert np.array_equal(of_scores, [10.0, -40.0, 90.0])  # of the loss by the kernel, times value
    assert np.array_equal(of_values, [10.0, 0.0, 30.0])


def test_random_weights_have_one_magnitude_and_a_seed_draws_them_again():
    first, again, other = (
        signed_constants((2, 3, 8), 8, 0.25, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert set(first.reshape(-1)) == {-1.0, 1.0}  # sqrt(2 / (8 * 0.25))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
