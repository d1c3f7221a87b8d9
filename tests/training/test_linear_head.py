"""A head to begin with is a linear classifier that has converged on the task's own features."""

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.linear_model import LogisticRegression

import packnet_tf
from packnet_tf.training.heads import (
    FEATURE_NORM,
    Examples,
    fit_linear,
    fitted_head,
    linear_accuracy,
)

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, 300)
FEATURES = (
    RANDOM.normal(size=(3, 6))[LABELS] * 20 + RANDOM.normal(size=(300, 6)) * [1, 9, 30, 1, 5, 2]
).astype("float32")
EXAMPLES = Examples(FEATURES, LABELS, 3)


def test_it_answers_as_scikit_learn_on_standardised_features():
    standard = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    expected = LogisticRegression(C=0.01, max_iter=1000).fit(standard, LABELS)
    kernel, bias = fit_linear(FEATURES, LABELS, 3)
    logits = FEATURES @ kernel + bias
    wanted = expected.decision_function(standard)
    difference = (logits - logits.mean(1, keepdims=True)) - wanted
    assert np.abs(difference).max() < 0.01
    assert linear_accuracy(fitted_head(EXAMPLES, 3), EXAMPLES) > 0.9


def test_features_that_differ_by_rounding_alone_say_nothing():
    rounding = 100 + 1e-5 * LABELS[:, None]
    features = np.concatenate([FEATURES, rounding], axis=1).astype("float32")
    kernel, _ = fit_linear(features, LABELS, 3)
    assert np.abs(kernel[-1] * 1e-5).max() < 1e-5
    np.testing.assert_allclose(kernel[:-1], fit_linear(FEATURES, LABELS, 3)[0], atol=1e-4)


def test_a_feature_that_few_examples_activate_moves_no_logit_far_once_more_do():
    rare = np.zeros((300, 1), "float32")
    rare[np.flatnonzero(LABELS == 1)[:5]] = 0.01
    features = np.concatenate([FEATURES, rare], axis=1)
    kernel, bias = fit_linear(features, LABELS, 3)
    before = FEATURES @ kernel[:-1] + bias
    active = np.square(FEATURES.std(0)).mean() ** 0.5
    assert np.abs(kernel[-1] * active).max() < 0.2 * np.ptp(before)
    assert (before.argmax(1) == LABELS).mean() > 0.9


@pytest.mark.parametrize("weights", [{0: 5.0, 2: 0.5}, "balanced"])
def test_weights_of_classes_are_those_of_scikit_learn(weights):
    rows = np.r_[0:40, np.flatnonzero(LABELS == 1)]
    features, labels = FEATURES[rows], LABELS[rows]
    standard = (features - features.mean(0)) / features.std(0)
    given = weights if weights == "balanced" else {**weights, 1: 1.0}
    expected = LogisticRegression(C=0.01, max_iter=1000, class_weight=given).fit(standard, labels)
    kernel, bias = fit_linear(features, labels, 3, weights)
    logits = features @ kernel + bias
    wanted = expected.decision_function(standard)
    assert np.abs((logits - logits.mean(1, keepdims=True)) - wanted).max() < 0.01


@pytest.mark.parametrize(("present", "classes"), [((0, 1), 2), ((0, 2), 4), ((1,), 3)])
def test_two_classes_and_classes_without_examples_are_ordinary_cases(present, classes):
    rows = np.isin(LABELS, present)
    kernel, bias = fit_linear(FEATURES[rows], LABELS[rows], classes)
    answers = (FEATURES[rows] @ kernel + bias).argmax(-1)
    assert kernel.shape == (6, classes)
    assert np.mean(answers == LABELS[rows]) > 0.9


def test_two_classes_have_the_logits_of_a_softmax():
    rows = LABELS < 2
    standard = (FEATURES[rows] - FEATURES[rows].mean(0)) / FEATURES[rows].std(0)
    expected = LogisticRegression(C=0.01, max_iter=1000).fit(standard, LABELS[rows])
    kernel, bias = fit_linear(FEATURES[rows], LABELS[rows], 2)
    logits = FEATURES[rows] @ kernel + bias
    np.testing.assert_allclose(
        logits[:, 1] - logits[:, 0], expected.decision_function(standard), atol=0.01
    )


def test_features_are_scaled_to_one_norm_within_the_head():
    head = fitted_head(EXAMPLES, 3)
    scaled = np.asarray(head.layers[0](FEATURES))
    assert np.mean(np.sum(scaled**2, -1)) == pytest.approx(FEATURE_NORM, rel=1e-4)


@pytest.mark.parametrize("statistics", ["task", "trunk"])
def test_a_task_starts_as_good_as_its_head_and_looking_changes_nothing(statistics):
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="norm")(layers.Dense(8, activation="relu")(inputs))
    net = packnet_tf.PackNet(keras.Model(inputs, x))
    before = {path: owner.copy() for path, owner in net.owners().items()}
    head = packnet_tf.linear_head(net, (FEATURES, LABELS), statistics=statistics)
    assert net.open_model is None
    for path, owner in net.owners().items():
        np.testing.assert_array_equal(owner, before[path])
    model = net.add_task("a", head, statistics=statistics)
    logits = np.asarray(model(FEATURES, training=True))
    assert np.mean(logits.argmax(-1) == LABELS) > 0.85


def test_features_that_are_no_vectors_are_refused():
    inputs = keras.Input((4, 4, 1))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))
    images, labels = np.zeros((8, 4, 4, 1), "float32"), np.arange(8) % 2
    with pytest.raises(ValueError, match="one vector of finite features for each example"):
        packnet_tf.linear_head(net, (images, labels))


@pytest.fixture
def net():
    return packnet_tf.PackNet(keras.Sequential([keras.Input((6,)), layers.Dense(8)]))


@pytest.mark.parametrize(
    "form",
    [lambda y: y.astype("float32"), lambda y: y[:, None], lambda y: np.eye(3)[y], lambda y: y > 0],
    ids=["floats", "a column", "one-hot", "bools"],
)
def test_labels_may_have_every_form_of_one_class(form, net):
    given = form(LABELS)
    classes = LABELS > 0 if given.dtype == bool else LABELS
    head = packnet_tf.linear_head(net, (FEATURES, given))
    expected = packnet_tf.linear_head(net, (FEATURES, classes.astype(int)))
    np.testing.assert_array_equal(head.get_weights()[0], expected.get_weights()[0])


def test_one_hot_labels_tell_of_classes_without_examples(net):
    head = packnet_tf.linear_head(net, (FEATURES, np.eye(5)[LABELS]))
    assert head.output_shape == (None, 5)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (LABELS + 1, "The labels of 3 classes are 0 to 2; these are 1 to 3. Count classes from 0."),
        (LABELS - 1, "The labels of 3 classes are 0 to 2; these are -1 to 1."),
        (LABELS + 0.5, "other labels of shape (32,) and dtype float64"),
        (np.ones((300, 3), int), "other labels of shape (32, 3) and dtype int64"),
        (np.array(["rose", "tulip", "daisy"])[LABELS], "other labels of shape (32,) and dtype <U5"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, text, net):
    with pytest.raises(ValueError) as caught:
        packnet_tf.linear_head(net, (FEATURES, labels), classes=3)
    assert text in str(caught.value)


def test_data_without_batches_are_refused(net):
    with pytest.raises(ValueError, match=r"have no batches\. A generator is used up"):
        packnet_tf.linear_head(net, iter([]))


def test_weights_of_classes_that_there_are_not_are_refused(net):
    with pytest.raises(ValueError, match="has a weight for class 7, and the 3 classes are 0 to 2"):
        packnet_tf.linear_head(net, (FEATURES, LABELS), class_weight={7: 2.0})


def weights_of_head(head):
    return np.concatenate([np.ravel(value) for value in head.get_weights()])


WEIGHTS = np.where(np.arange(300) % 3 == 0, 0.0, 1.0 + np.arange(300) % 4).astype("float32")


def test_sample_weights_are_those_of_scikit_learn():
    standard = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    weights = WEIGHTS + 0.5
    expected = LogisticRegression(C=0.01, max_iter=1000).fit(standard, LABELS, weights)
    kernel, bias = fit_linear(FEATURES, LABELS, 3, weights=weights)
    logits = FEATURES @ kernel + bias
    wanted = expected.decision_function(standard)
    assert np.abs((logits - logits.mean(1, keepdims=True)) - wanted).max() < 0.01


def test_sample_weights_multiply_those_of_classes():
    by_class = {0: 5.0, 2: 0.5}
    of_class = np.array([5.0, 1.0, 0.5])[LABELS]
    both = fit_linear(FEATURES, LABELS, 3, by_class, WEIGHTS + 0.5)
    product = fit_linear(FEATURES, LABELS, 3, weights=(WEIGHTS + 0.5) * of_class)
    np.testing.assert_array_equal(both[0], product[0])


@pytest.mark.parametrize("one_hot", [False, True])
def test_examples_of_weight_zero_do_not_count(net, one_hot):
    rows = WEIGHTS > 0
    labels = np.where(rows, LABELS, 200)  # what they are labelled does not matter
    if one_hot:
        labels = np.where(rows[:, None], np.eye(3)[LABELS], 0.0)
    left_out = packnet_tf.linear_head(net, [(FEATURES[rows], LABELS[rows], WEIGHTS[rows])])
    zero = packnet_tf.linear_head(net, [(FEATURES, labels, WEIGHTS[:, None])])
    np.testing.assert_allclose(weights_of_head(zero), weights_of_head(left_out), atol=1e-4)


def test_arrays_come_in_all_forms_that_a_task_takes(net):
    head = weights_of_head(packnet_tf.linear_head(net, (FEATURES, LABELS)))
    for data in ([FEATURES, LABELS], (FEATURES, LABELS, None), (FEATURES, LABELS, np.ones(300))):
        np.testing.assert_array_equal(weights_of_head(packnet_tf.linear_head(net, data)), head)
    weighted = weights_of_head(packnet_tf.linear_head(net, (FEATURES, LABELS, WEIGHTS)))
    assert np.abs(weighted - head).max() > 1e-3


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ((FEATURES, LABELS, np.ones((300, 3))), r"one sample weight per example, 32 in this batch"),
        ((FEATURES, LABELS, -WEIGHTS), "finite and not below 0; got weights from -"),
        ((FEATURES, LABELS, np.zeros(300)), "have the weight 0, so none counts"),
        ((FEATURES, LABELS, WEIGHTS, WEIGHTS), "sample_weight\\); got 4 of them"),
        ([], "have no batches"),
    ],
)
def test_weights_that_are_none_are_refused(net, data, text):
    with pytest.raises(ValueError, match=text):
        packnet_tf.linear_head(net, data)
