"""Recurrent layers compute their kernels once per sequence, and train as plain ones do."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from helpers.pack_helpers import packed
from packnet_tf.packing import weight
from packnet_tf.packing.cloning import packed_kernels, plain_trunk

STEPS = 7
SEQUENCES = np.random.default_rng(0).normal(size=(4, STEPS, 3)).astype("float32")
FRAMES = np.random.default_rng(1).normal(size=(2, STEPS, 5, 5, 2)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class OwnCell(layers.Layer):
    """A cell of one's own with two packable layers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.input_layer = layers.Dense(4)
        self.state_layer = layers.Dense(4, use_bias=False)
        self.state_size = 4

    def build(self, shape):
        self.input_layer.build(shape)
        self.state_layer.build((shape[0], 4))

    def call(self, inputs, states):
        output = ops.tanh(self.input_layer(inputs) + self.state_layer(states[0]))
        return output, [output]


RECURRENT = {  # the layer, and how many views a call computes: one for each kernel
    "LSTM": (lambda: layers.LSTM(4), 2),
    "GRU of an unrolled sequence": (lambda: layers.GRU(4, unroll=True), 2),
    "Bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(4)), 4),
    # Keras calls all but the first cell once before the loop, to know their shapes.
    "RNN of stacked cells": (lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]), 4 + 4),
    "RNN of a cell of one's own": (lambda: layers.RNN(OwnCell()), 2),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(3, 3), 2),
}


@pytest.fixture
def computed(monkeypatch):
    """The shapes of the kernels whose views are computed in a test."""
    found, select = [], weight.select

    def noted(trainable, packed, *others):
        found.append(tuple(packed.shape))
        return select(trainable, packed, *others)

    monkeypatch.setattr(weight, "select", noted)
    return found


def trunks(kind, dtype="float32"):
    """The trunk of a pack's second task in training, a plain copy of it, and inputs for both."""
    inputs = FRAMES if kind == "ConvLSTM2D" else SEQUENCES
    keras.config.set_dtype_policy(dtype)
    trunk = keras.Sequential([keras.Input(inputs.shape[1:]), RECURRENT[kind][0]()])
    net = packed(trunk, one=0.5)
    ours = net.add_task("two", keras.Sequential([layers.Flatten(), layers.Dense(2)])).trunk
    return ours, plain_trunk(net.state.trunk, ours), inputs


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", RECURRENT)
def test_a_view_is_computed_once_per_sequence(kind, computed):
    ours, _, inputs = trunks(kind)
    computed.clear()
    ours(inputs)
    assert len(computed) == RECURRENT[kind][1]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_gradients_are_those_of_a_plain_layer_where_the_task_may_train(kind, dtype):
    import tensorflow as tf

    ours, plain, inputs = trunks(kind, dtype)
    pairs = packed_kernels(ours, plain)
    variables = [held.trained[0] for _, held in pairs], [kernel for kernel, _ in pairs]
    gradients = []
    for trunk, kernels in zip((ours, plain), variables, strict=True):
        with tf.GradientTape() as tape:
            loss = ops.sum(ops.square(ops.cast(trunk(inputs), "float32")))
        gradients.append(tape.gradient(loss, [kernel.value for kernel in kernels]))
    for (_, held), found, expected in zip(pairs, *gradients, strict=True):
        claim = ops.convert_to_numpy(held.claim) > 0
        assert 0 < claim.sum() < claim.size
        assert np.array_equal(found, np.where(claim, expected, 0))
