"""The measure of a router: right tasks, and the area under the ROC curve for an unknown task."""

import numpy as np
import pytest

from benchmarks.router import auroc, measure
from packnet_tf.routing.gaussians import TaskGaussian


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    assert auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == 0.875
    assert auroc(np.array([3.0]), np.array([1.0, 2.0])) == 1
    assert auroc(np.array([0.0, 5.0]), np.array([2.0])) == 0.5


def test_each_task_is_measured_as_known_and_as_unknown():
    none = np.zeros((1, 0)), np.zeros(0)
    known = {
        name: TaskGaussian(np.array([place]), *none, 1.0, threshold=-0.5, spread=0.5, examples=9)
        for name, place in (("a", 0.0), ("b", 10.0))
    }
    features = {"a": np.array([[0.0], [2.0], [6.0], [0.5]]), "b": np.array([[10.0], [9.0]])}
    found = measure(known, features)
    assert found["tasks"]["a"]["routed right"] == 0.75  # 6 is nearer to 10
    assert found["tasks"]["a"]["rejected"] == 0.5  # 2, and 6 - 10
    assert found["tasks"]["a"]["told as none"] == 1
    assert found["tasks"]["b"]["AUROC"] == 1
    assert found["mean"]["routed right"] == pytest.approx((0.75 + 1) / 2)
