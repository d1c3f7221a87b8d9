"""Promise 5: every variable that is not packed is either shared and frozen, or kept per task."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    claims,
    compiled,
    conv_trunk,
    data,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    owners,
    packed,
    values,
)
from packnet_tf.packing.policy import Policy, own_weights

BIASES = {("conv2", "bias"), ("fc", "bias")}
GAINS = {("norm1", "gamma"), ("norm1", "beta")}
STATISTICS = {("norm1", "moving_mean"), ("norm1", "moving_variance")}
BOTH = ["shared", "per_task"]


def own(model):
    """Values of all that is not packed, by layer and name."""
    return {(layer.name, v.name): values([v])[0] for layer, v in own_weights(model.trunk)}


def trained(model):
    """What of the trunk is not packed and trains."""
    ids = {id(variable) for variable in model.trainable_variables}
    return {(layer.name, v.name) for layer, v in own_weights(model.trunk) if id(v) in ids}


def moved(before, after):
    return {key for key in before if not np.array_equal(before[key], after[key])}


def train(model):
    """Real training steps, so that moving statistics move where they may."""
    compiled(model, keras.optimizers.SGD(0.5))
    x, y = data(model)
    model.train_on_batch(x + 1, y)
    model.train_on_batch(x - 3, y)


@pytest.mark.parametrize(
    ("biases", "norms"),
    [
        ("shared", "per_task"),
        ("per_task", "shared"),
        *slow(("shared", "shared"), ("per_task", "per_task")),
    ],
)
def test_what_is_not_packed_is_shared_and_frozen_or_kept_per_task(biases, norms):
    net = packnet_tf.PackNet(conv_trunk(), biases=biases, norms=norms)
    everything = BIASES | GAINS | STATISTICS
    shared = (BIASES if biases == "shared" else set()) | (
        GAINS | STATISTICS if norms == "shared" else set()
    )

    one = net.add_task("one", layers.Dense(3))
    start = own(one)
    assert set(start) == everything
    assert trained(one) == BIASES | GAINS
    train(one)
    net.prune(0.5)
    train(one)
    net.commit()
    first = own(one)
    assert moved(start, first) == everything
    assert moved(first, own(net.task_model("one"))) == set()

    two = net.add_task("two", layers.Dense(3))
    assert trained(two) == (BIASES | GAINS) - shared
    # Shared values go on from the first task, the others start from the trunk's.
    assert moved(first, own(two)) == everything - shared
    assert moved(start, own(two)) == shared
    train(two)
    net.prune(0.5)
    train(two)
    net.commit()
    second = own(two)
    assert moved(first, second) == everything - shared
    assert moved(start, second) == everything
    assert moved(second, own(net.task_model("two"))) == set()
    assert moved(first, own(net.task_model("one"))) == set()

    three = net.add_task("three", layers.Dense(3))
    assert moved(first, own(three)) == everything - shared
    assert moved(start, own(three)) == shared


def test_the_defaults_are_shared_biases_and_norms_per_task():
    assert Policy() == Policy(biases="shared", norms="per_task", restart="trunk")
    assert packnet_tf.PackNet(mlp_trunk()).policy == Policy()


@pytest.mark.parametrize(
    "norm",
    [
        layers.BatchNormalization(name="norm"),
        layers.LayerNormalization(name="norm"),
        layers.GroupNormalization(2, name="norm"),
        layers.RMSNormalization(name="norm"),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("norms", BOTH)
def test_every_normalisation_follows_the_policy_for_norms(norm, norms):
    inputs = keras.Input((6,))
    norm = type(norm).from_config(norm.get_config())
    trunk = keras.Model(inputs, norm(layers.Dense(8, use_bias=False, name="fc")(inputs)))
    net = packnet_tf.PackNet(trunk, norms=norms)
    train(net.add_task("one", layers.Dense(3)))
    net.prune(0.5)
    net.commit()
    first = own(net.task_model("one"))
    two = net.add_task("two", layers.Dense(3))
    assert bool(trained(two)) == (norms == "per_task")
    train(two)
    assert moved(first, own(two)) == (set(first) if norms == "per_task" else set())


@pytest.mark.parametrize("restart", ["trunk", "zero"])
def test_freed_weights_start_a_later_task_from_where_the_policy_says(trunk, restart):
    jolt(trunk)
    net = packnet_tf.PackNet(trunk, restart=restart)
    plain = {layer.name: layer for layer in trunk._flatten_layers()}
    trunk_values = {
        path: values([plain[path.rsplit("/")[-1]].kernel])[0] for path in net.state.weights
    }

    net.add_task("one", layers.Dense(3))
    for path, value in kernels(net).items():  # the first task starts from the trunk, always
        assert np.array_equal(value, trunk_values[path])
    jolt(net.open_model, 1)
    net.prune(0.5)
    jolt(net.open_model, 2)
    net.commit()
    for name in ("two", "three"):
        model = net.add_task(name, layers.Dense(3))
        for path, value in kernels(net).items():
            free = owners(net)[path] == 0
            start = trunk_values[path] if restart == "trunk" else np.zeros_like(value)
            assert np.array_equal(value, np.where(free, start, 0))
            assert np.array_equal(claims(net)[path], np.where(free, len(net.tasks) + 1, 0))
        jolt(model, 3)
        net.prune(0.5)
        net.commit()


@keras.saving.register_keras_serializable("tests")
class Centre(layers.Layer):
    """A custom layer with a gain that trains and a mean that moves in training."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")
        self.mean = self.add_weight(
            name="mean", shape=(shape[-1],), initializer="zeros", trainable=False
        )

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.5 * self.mean + 0.5 * ops.mean(x, axis=0))
        return self.gain * (x - self.mean)


def custom_trunk():
    inputs = keras.Input((6,))
    x = Centre(name="centre")(layers.Dense(8, name="fc")(inputs))
    return keras.Model(inputs, x, name="custom")


def test_weights_of_a_custom_layer_train_with_the_first_task_and_are_shared():
    net = packnet_tf.PackNet(custom_trunk())
    one = net.add_task("one", layers.Dense(3))
    start = own(one)
    assert trained(one) == {("fc", "bias"), ("centre", "gain")}
    train(one)
    assert moved(start, own(one)) == {("fc", "bias"), ("centre", "gain"), ("centre", "mean")}
    net.prune(0.5)
    net.commit()
    first = own(one)
    two = net.add_task("two", layers.Dense(3))
    assert moved(first, own(two)) == set()
    assert trained(two) == set()


def test_moving_statistics_of_a_custom_layer_never_drift_silently():
    """A layer that moves its statistics whenever it is trained keeps them per task, at the least:
    each task answers with those it was committed with."""
    net = packnet_tf.PackNet(custom_trunk())
    train(net.add_task("one", layers.Dense(3)))
    net.prune(0.5)
    net.commit()
    x, _ = data(net.task_model("one"))
    first, answers = own(net.task_model("one")), logits(net.task_model("one"), x)
    two = net.add_task("two", layers.Dense(3))
    train(two)
    net.prune(0.5)
    second, later = own(two), logits(two, x)
    net.commit()
    assert moved(first, own(net.task_model("one"))) == set()
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    assert moved(second, own(net.task_model("two"))) == set()
    assert np.array_equal(logits(net.task_model("two"), x), later)
    assert moved(first, own(net.add_task("three", layers.Dense(3)))) == set()


@pytest.mark.parametrize(
    ("shape", "dtype", "stack"),
    [
        pytest.param((5,), "int32", [layers.Embedding(9, 4), layers.Flatten()], id="embedding"),
        pytest.param((5, 3), "float32", [layers.LSTM(4)], id="recurrent"),
        pytest.param(
            (5, 3),
            "float32",
            [layers.Bidirectional(layers.GRU(3))],
            id="wrapped",
            marks=pytest.mark.slow,
        ),
        pytest.param((4,), "float32", [layers.PReLU()], id="activation"),
        pytest.param(
            (4,), "float32", [layers.SpectralNormalization(layers.Dense(4))], id="spectral"
        ),
    ],
)
def test_every_other_layer_trains_with_the_first_task_and_is_shared(shape, dtype, stack):
    inputs = keras.Input(shape, dtype=dtype)
    end = inputs
    for layer in stack:
        end = layer(end)
    trunk = keras.Model(inputs, layers.Dense(6, use_bias=False, name="fc")(end))
    net = packnet_tf.PackNet(trunk)
    one = net.add_task("one", layers.Dense(3))
    start = own(one)
    assert trained(one)
    low = 0 if dtype == "int32" else -4
    x = (np.arange(20 * np.prod(shape)).reshape(20, *shape) % 9 + low).astype(dtype)
    y = np.arange(20) % 3

    def train(model):
        compiled(model, keras.optimizers.SGD(0.5)).train_on_batch(x, y)

    train(one)
    assert moved(start, own(one)) >= trained(one)
    net.prune(0.5)
    net.commit()
    first, answers = own(one), logits(one, x)
    two = net.add_task("two", layers.Dense(3))
    assert trained(two) == set()
    train(two)
    net.prune(0.5)
    net.commit()
    assert moved(first, own(net.task_model("one"))) == set()
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    assert moved(own(two), own(net.task_model("two"))) == set()


def test_random_layers_count_for_nothing():
    """Dropout's seed is no weight: it is neither shared nor kept."""
    inputs = keras.Input((6,))
    trunk = keras.Model(inputs, layers.Dropout(0.5)(layers.Dense(8, name="fc")(inputs)))
    net = packnet_tf.PackNet(trunk)
    one = net.add_task("one", layers.Dense(3))
    assert set(own(one)) == {("fc", "bias")}
    train(one)
    net.prune(0.5)
    net.commit()
    x, _ = data(trunk)
    answers = logits(net.task_model("one"), x)
    train(net.add_task("two", layers.Dense(3)))
    assert np.array_equal(logits(net.task_model("one"), x), answers)


def test_the_order_of_own_weights_is_the_same_in_every_clone(trunk):
    net = packed(trunk, one=0.5)
    expected = [(layer.name, v.name, v.shape) for layer, v in own_weights(net.state.trunk)]
    for model in (net.task_model("one"), net.add_task("two", layers.Dense(3))):
        found = [(layer.name, v.name, v.shape) for layer, v in own_weights(model.trunk)]
        assert found == expected
    assert len(expected) == len(trunk.weights) - len(net.state.weights)
