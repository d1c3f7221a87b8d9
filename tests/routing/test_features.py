"""The features that a router looks at."""

import keras
import numpy as np
import pytest
from keras import layers

from helpers.pack_helpers import TRUNKS, conv_trunk, mlp_trunk
from packnet_tf.routing.features import feature_model


def functional(trunk):
    """A trunk as the pack has it: a Sequential model becomes a functional one."""
    return keras.Model(trunk.inputs[0], trunk.outputs[0])


def three_resolutions(nested):
    """8, 4 and 2 pixels, the last pooled; a padded map is of the nearest resolution."""
    pixels = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, padding="same", name="whole")(pixels)
    x = layers.Conv2D(3, 2, strides=2, name="half")(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="padded")(x)
    x = layers.Conv2D(4, 3, strides=2, name="quarter")(x)
    if not nested:
        return keras.Model(pixels, layers.GlobalAveragePooling2D()(x))
    inner, outer = keras.Model(pixels, x, name="inner"), keras.Input((8, 8, 1))
    inner = keras.Sequential([layers.Rescaling(0.5), inner, layers.GlobalAveragePooling2D()])
    return keras.Model(outer, inner(outer))


@pytest.mark.parametrize("nested", [False, True])
def test_they_are_the_last_map_of_each_resolution_and_the_trunks_output(nested):
    trunk = three_resolutions(nested)
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    found = np.array(feature_model(trunk)(x))
    # Three channels at 4 (5 with padding) pixels; four of the output, not again those at 2 pixels.
    assert found.shape == (5, 3 + 4)
    assert np.linalg.norm(found[:, :3], axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    means = np.array(trunk(x))
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    roots = unit / np.sqrt(np.abs(unit) + 1e-3)
    roots /= np.linalg.norm(roots, axis=1, keepdims=True)
    assert found[:, 3:] == pytest.approx(roots, abs=1e-5)


@pytest.mark.parametrize("name", sorted({*TRUNKS} - {"conv"}))
def test_trunks_without_images_have_the_features_of_their_outputs(name):
    trunk = functional(TRUNKS[name]())
    x = np.random.default_rng(0).normal(size=(2, *trunk.input_shape[1:])).astype("float32")
    found = np.array(feature_model(trunk)(x))
    assert found.shape == (2, trunk.output_shape[-1])
    assert np.isfinite(found).all()


def test_an_image_without_any_feature_is_no_division_by_zero():
    trunk = functional(mlp_trunk())
    for variable in trunk.weights:
        variable.assign(np.zeros(variable.shape))
    assert np.array(feature_model(trunk)(np.ones((2, 12), "float32"))).tolist() == [[0.0] * 8] * 2


def test_a_trunk_shows_the_same_answers_afterwards():
    trunk, x = conv_trunk(), np.ones((2, 6, 6, 1), "float32")
    before = np.array(trunk(x))
    feature_model(trunk)(x)
    assert np.array_equal(trunk(x), before)


@pytest.mark.parametrize("nested", [False, True])
def test_layers_that_are_random_in_training_are_not_here(nested):
    random = [layers.RandomFlip(), layers.RandomRotation(0.5), layers.Dropout(0.5)]
    if nested:
        random = [keras.Sequential([keras.Input((8, 8, 3)), *random])]
    stack = [*random, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    trunk = functional(keras.Sequential([keras.Input((8, 8, 3)), *stack]))
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype("float32")
    features = feature_model(trunk)
    first = features.predict(x, verbose=0)
    np.testing.assert_array_equal(features.predict(x, verbose=0), first)
    steady = feature_model(functional(keras.Sequential([keras.Input((8, 8, 3)), *stack[-2:]])))
    np.testing.assert_allclose(steady.predict(x, verbose=0), first, rtol=1e-6)
