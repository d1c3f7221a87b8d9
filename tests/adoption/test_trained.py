"""Trunks with random weights are told from trained ones, also without biases and normalisation."""

import random

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from packnet_tf.adoption.trained import is_trained


def without_bias(start):
    """A network whose kernels alone can tell."""
    options = {"use_bias": False, "kernel_initializer": start}
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, activation="relu", **options),
            layers.Flatten(),
            layers.Dense(32, **options),
        ]
    )


def depthwise():
    return keras.Sequential(
        [
            keras.Input((8, 8, 32)),
            layers.SeparableConv2D(32, 3, use_bias=False),
            layers.GlobalAveragePooling2D(),
        ]
    )


TRUNKS = {
    **{
        start: lambda start=start: without_bias(start)
        for start in ("glorot_uniform", "he_normal", "random_normal", "orthogonal")
    },
    "depthwise": depthwise,
    "recurrent": lambda: keras.Sequential([keras.Input((5, 4)), layers.LSTM(8)]),
    "biases": lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]),
    "normalisation": lambda: keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, use_bias=False), layers.BatchNormalization()]
    ),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_is_trained_once_it_was(name):
    trunk = TRUNKS[name]()
    assert not is_trained(trunk)
    assert not is_trained(packnet_tf.PackNet(trunk).state.trunk)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, *trunk.input_shape[1:])).astype("float32")
    targets = rng.normal(size=(64, trunk.output_shape[-1])).astype("float32")
    trunk.compile(keras.optimizers.Adam(0.03), "mse")
    trunk.fit(inputs, targets, batch_size=8, epochs=20, verbose=0)
    assert is_trained(trunk)
    assert is_trained(packnet_tf.PackNet(trunk).state.trunk)


def test_weights_of_another_distribution_are_trained_ones(tmp_path):
    trunk = without_bias("glorot_uniform")
    trunk.save(tmp_path / "trunk.keras")
    assert not is_trained(keras.models.load_model(tmp_path / "trunk.keras"))
    trunk.layers[-1].kernel.assign(1.2 * trunk.layers[-1].kernel)
    trunk.save(tmp_path / "trunk.keras")
    assert is_trained(keras.models.load_model(tmp_path / "trunk.keras"))


def test_the_question_moves_no_random_numbers():
    """Otherwise a seed would give other networks where it is asked."""
    keras.utils.set_random_seed(0)
    trunk = without_bias("glorot_uniform")
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert not is_trained(trunk)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_trunk_without_weights_counts_as_trained():
    assert is_trained(keras.Sequential([keras.Input((4, 4, 3)), layers.GlobalAveragePooling2D()]))
