"""The criteria that `python -m benchmarks.saliency` compares, worked by hand."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from benchmarks.saliency import in_turn, saliency, show, sparsity_after

INPUTS = np.array([[3.0, 0.0], [4.0, 2.0]], np.float32)
KERNEL = np.array([[1.0, -2.0, 0.5], [3.0, 0.1, -4.0]], np.float32)


@pytest.fixture
def net():
    image = keras.Input((2,))
    net = packnet_tf.PackNet(keras.Model(image, layers.Dense(3, use_bias=False)(image)))
    net.add_task("a", layers.Activation("linear"))
    [weight] = net.state.weights.values()
    weight.trainable.assign(KERNEL)
    return net


def batches(labels):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((INPUTS, labels)).batch(1)


def test_inputs_scale_the_weights_that_they_multiply(net):
    [found] = saliency(net, batches([0, 1]), "input")
    scales = np.sqrt([[(9 + 16) / 2], [(0 + 4) / 2]])
    assert found == pytest.approx(np.abs(KERNEL) * scales)
    net.open_model.predict(INPUTS, verbose=0)  # compiled, which the measurement was not


def test_gradients_are_those_of_the_cross_entropy(net):
    labels = [0, 2]
    [found] = saliency(net, batches(labels), "gradient")
    expected = np.zeros_like(KERNEL)
    for inputs, label in zip(INPUTS, labels, strict=True):
        chances = np.exp(inputs @ KERNEL)
        gradient = np.outer(inputs, chances / chances.sum() - np.eye(3)[label])
        expected += (KERNEL * gradient) ** 2 / 2
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("criterion", ["magnitude", "input", "gradient", "random"])
def test_the_least_important_weights_are_released(net, criterion):
    [importance] = importances = saliency(net, batches([0, 1]), criterion)
    net.prune(0.5, in_turn(importances))
    [weight] = net.state.weights.values()
    released = np.array(weight.claim) == 0
    assert released.sum() == 3
    assert importance[released].max() <= importance[~released].min()


def test_gradual_pruning_begins_after_a_third_of_the_epochs_and_reaches_the_ratio():
    found = [sparsity_after(epoch, 6, 0.8) for epoch in range(6)]
    assert found == pytest.approx(
        [0, 0, *(0.8 * (1 - part**3) for part in (3 / 4, 1 / 2, 1 / 4, 0))]
    )


def test_channels_of_a_depthwise_kernel_have_their_own_inputs():
    image = keras.Input((2, 2, 2))
    pooled = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(1, use_bias=False)(image))
    net = packnet_tf.PackNet(keras.Model(image, pooled))
    net.add_task("a", layers.Activation("linear"))
    [weight] = net.state.weights.values()
    weight.trainable.assign(np.array([1.0, 1.0]).reshape(weight.trainable.shape))
    data = [(np.stack([np.full((1, 2, 2), 3.0), np.full((1, 2, 2), 5.0)], axis=-1), [0])]
    import tensorflow as tf

    [found] = saliency(net, tf.data.Dataset.from_tensors(data[0]), "input")
    assert found.ravel() == pytest.approx([3.0, 5.0])


@pytest.mark.parametrize(
    ("of_base", "title", "numbers"),
    [
        (False, "test accuracy, retrained (and right after the prune)", "50.0% (25.0%)"),
        (True, "error of features, repaired (and right after the prune)", "0.5000 (0.2500)"),
    ],
)
def test_tables_say_what_was_measured(of_base, title, numbers, capsys):
    show({"pets": {"0.5": {"magnitude": [0.25, 0.5]}}}, of_base)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == title
    assert printed[-1].split()[2:4] == numbers.split()
