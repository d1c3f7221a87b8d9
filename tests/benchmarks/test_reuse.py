"""What a new task sees of earlier ones, by the direction of their gradients."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from benchmarks.reuse import (
    WAYS,
    agreement,
    directions,
    gradients,
    measure,
    read_flags,
    show_agreeing,
)
from helpers.comparison_files import write_images

X = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
KERNEL = np.array([[1.0, -1.0], [2.0, 0.5]], np.float32)


@pytest.fixture
def net():
    """Two tasks that own the left and the right column of one kernel, and an open one."""
    image = keras.Input((2,))
    trunk = keras.Model(image, layers.Dense(2, use_bias=False, name="only")(image))
    net = packnet_tf.PackNet(trunk)
    for column, name in enumerate(("left", "right")):
        net.add_task(name, layers.Activation("linear"))
        [weight] = net.state.weights.values()
        weight.trainable.assign(KERNEL * (np.arange(2) == column))
        if name == "left":
            net.prune(0.5, lambda values, claim, ratio: np.tile([False, True], (2, 1)))
        net.commit()
    return net


def batches(labels):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, labels)).batch(2)


def expected(kernel, labels):
    """The mean gradient of the cross-entropy by a kernel, worked out from its definition."""
    chances = np.exp(X @ kernel)
    chances /= chances.sum(-1, keepdims=True)
    return X.T @ (chances - np.eye(2)[labels]) / 2


def test_directions_are_signs_of_the_gradient_at_weights_of_the_task(net):
    labels, model = [0, 1], net.task_model("left")
    [found] = directions(net, model, "left", batches(labels))
    seen = KERNEL * [1, 0]
    assert found.tolist() == (np.sign(expected(seen, labels)) * [1, 0]).tolist()


def test_a_layer_shows_the_tasks_that_agreed_in_most_epochs(net):
    model = net.add_task("next", layers.Activation("linear"), overlay=1.0)
    for weight in net.state.weights.values():
        weight.claim.assign(np.zeros((2, 2)))  # it shows the earlier tasks
    labels = [1, 0]
    [found] = gradients(net, model, batches(labels))
    np.testing.assert_allclose(found, expected(KERNEL, labels), rtol=1e-5)
    signs = {"left": [np.sign(found) * [1, 0]], "right": [-np.sign(found) * [0, 1]]}
    agreed = agreement([found], signs)
    assert agreed == {"left": [True], "right": [False]}
    show_agreeing(net, model, [agreed, agreed, {"left": [False], "right": [True]}], "next")
    [layer] = [layer for layer in model.trunk.layers if layer.name == "only"]
    assert layer.task_view.sees == (1, 255)
    np.testing.assert_array_equal(layer.kernel, KERNEL * [1, 0])


def test_gradients_are_compared_in_an_epoch_at_the_least(capsys):
    given = ["--data=a", "--trunk=b", "--tasks=c", "--last=d", "--epochs=2"]
    with pytest.raises(SystemExit):
        read_flags(given)
    assert "--epochs is at least 3" in capsys.readouterr().err


@pytest.mark.slow
def test_every_way_is_measured_on_every_task(tmp_path):
    write_images(tmp_path)
    given = {"data": tmp_path, "trunk": tmp_path / "small.keras", "trunk_output": "features"}
    given |= {"tasks": "shades", "last": "greys", "epochs": 3, "retrain_epochs": 1, "seeds": 2}
    found = measure(read_flags([f"--{name}={value}" for name, value in given.items()]))
    assert list(found) == ["greys"]
    assert list(found["greys"]) == list(WAYS)
    for accuracies in found["greys"].values():
        assert len(accuracies) == 2
        assert all(0 <= accuracy <= 1 for accuracy in accuracies)
