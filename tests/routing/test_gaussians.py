"""The Gaussians of tasks, on arrays worked out by hand."""

import numpy as np
import pytest

from packnet_tf.routing.gaussians import (
    TaskGaussian,
    fit_gaussian,
    log_likelihoods,
    principal_directions,
    scores_of,
)


def gaussian(mean, directions=(), variances=(), noise=1.0, threshold=0.0, spread=1.0):
    columns = np.array(directions, np.float16).reshape(len(variances), len(mean)).T
    own = np.array(mean, np.float16), columns, np.array(variances, np.float32)
    return TaskGaussian(*own, noise, threshold, spread, examples=4)


def test_a_distance_counts_each_direction_by_its_variance():
    one = gaussian([1.0, 0.0], directions=[[1.0, 0.0]], variances=[4.0], noise=0.25)
    # 4 along the direction is 16 / 4, 1 across it is 1 / 0.25; the determinant is 1.
    [[found]] = log_likelihoods(np.array([[5.0, 1.0]]), [one])
    assert found == -0.5 * (4 + 4 + np.log(4.0 * 0.25))


def test_mean_and_directions_are_of_the_images_and_variances_of_those_held_out():
    x = np.zeros((10, 3))
    x[:, 1] = [-3, -3, -3, -3, -3, 3, 3, 3, 3, 3]
    held_out = np.array([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0], [1.0, -2.0, 0.0], [-1.0, 2.0, 0.0]])
    found = fit_gaussian(x + 2, held_out + 2)
    assert found.mean.tolist() == [2, 2, 2]
    assert np.abs(found.directions[:, 0]).tolist() == [0, 1, 0]
    assert found.variances.tolist()[0] == 4
    assert found.directions.shape == (3, 2)  # ten images determine two
    assert found.noise == 1  # what is left of the first axis: the second direction is none
    assert found.examples == 14


@pytest.mark.parametrize("examples", [3, 40])
def test_principal_directions_are_those_of_the_covariance(examples):
    x = np.random.default_rng(0).normal(size=(examples, 6)) * [1, 9, 1, 4, 1, 1]
    x -= x.mean(axis=0)
    found = principal_directions(x, 2)
    _, vectors = np.linalg.eigh(np.cov(x.T))
    assert np.abs(found.T @ vectors[:, ::-1][:, :2]) == pytest.approx(np.eye(2), abs=1e-6)


def test_the_threshold_is_below_all_but_one_percent_of_the_images_held_out():
    rng = np.random.default_rng(1)
    x, held_out = rng.normal(size=(2, 1000, 5))
    found = fit_gaussian(x, held_out)
    scores = scores_of(log_likelihoods(held_out, [found]), [found])[:, 0]
    assert (scores < 0).sum() == 10
    assert np.median(scores) == pytest.approx(1, abs=1e-4)


def test_scores_are_calibrated_by_the_most_likely_task_of_each_image():
    both = [gaussian([0.0], threshold=-10.0, spread=5.0), gaussian([9.0], threshold=-2.0)]
    found = scores_of(np.array([[-5.0, -6.0], [-15.0, -40.0], [-9.0, -3.0]]), both)
    assert found.dtype == np.float32
    assert found.tolist() == [[1.0, np.float32(0.8)], [-1.0, -6.0], [-7.0, -1.0]]


def test_images_that_are_all_the_same_have_a_gaussian():
    same = np.full((8, 3), 0.5)
    found = fit_gaussian(same, same)
    assert np.isfinite([found.noise, found.threshold, found.spread]).all()
    assert found.noise > 0
    far = log_likelihoods(np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.6]]), [found])
    assert far[0] > far[1]
