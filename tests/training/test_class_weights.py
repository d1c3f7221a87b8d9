"""Weights by class, worked out by hand."""

import numpy as np
import pytest
from keras import ops

import packnet_tf
from packnet_tf.training.class_weights import (
    balanced_weights,
    check_class_weight,
    classes_of,
    count_classes,
    weights_of,
)


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 5],
        [[2], [0], [5]],
        [2.0, 0.0, 5.0],
        np.eye(6)[[2, 0, 5]],
    ],
    ids=["integers", "a column", "floats", "one-hot"],
)
def test_classes_are_read_from_labels_of_every_form(labels):
    classes = classes_of(np.asarray(labels))
    assert ops.convert_to_numpy(classes).tolist() == [2, 0, 5]
    assert ops.convert_to_numpy(weights_of(classes, {0: 0.5, 2: 3.0})).tolist() == [3.0, 0.5, 1.0]


def test_balanced_classes_count_alike_and_an_example_counts_1_on_average():
    counts = count_classes([np.array([0, 1, 1]), np.array([1, 3])])
    assert counts == {0: 1, 1: 3, 3: 1}
    weights = balanced_weights(counts)
    assert len({counts[label] * weight for label, weight in weights.items()}) == 1
    assert sum(counts[label] * weight for label, weight in weights.items()) == pytest.approx(5)
    assert balanced_weights({0: 2, 1: 0}) == {0: 1.0}


@pytest.mark.parametrize("labels", [np.zeros((2, 3, 3)), {"a": np.zeros(2)}, np.zeros(())])
def test_labels_without_one_class_per_example_are_refused(labels):
    with pytest.raises(ValueError, match=r"\(x, y, sample_weight\)"):
        classes_of(labels)


def test_labels_of_several_classes_are_not_counted():
    smoothed = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert count_classes([smoothed]) == {0: 1, 1: 1}
    for label in ([1, 1], [0, 0]):
        with pytest.raises(ValueError, match="several classes or none"):
            count_classes([smoothed, np.array([label])])


@pytest.mark.parametrize(
    "given",
    ["balance", {}, {"rose": 2.0}, {-1: 2.0}, {0: -1.0}, {0: np.inf}, {True: 1.0}, [1, 2],
     np.array([1.0, 2.0])],  # what scikit-learn's compute_class_weight returns
)  # fmt: skip
def test_what_are_no_class_weights_is_refused(given):
    with pytest.raises(ValueError, match=r"Write class_weight=\{0: 1.0, 1: 2.5\}"):
        check_class_weight(given)


@pytest.mark.parametrize("given", [None, "balanced", {0: 0, np.int64(3): np.float32(2.0)}])
def test_class_weights_are_accepted(given):
    check_class_weight(given)


def test_weights_of_classes_that_there_are_not_are_refused():
    check_class_weight({0: 1.0, 2: 2.0}, 3)
    with pytest.raises(ValueError, match=r"class 3, and the 3 classes are 0 to 2\. Count"):
        check_class_weight({1: 1.0, 2: 2.0, 3: 1.0}, 3)
    with pytest.raises(ValueError, match="class 2, and the 2 classes"):
        packnet_tf.Task("a", None, None, classes=["x", "y"], class_weight={2: 1.0})
