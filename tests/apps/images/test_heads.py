"""The head of a task of images: its features have one size, whatever the trunk makes of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.pack_helpers import jolt
from packnet_tf.apps.images.heads import calibrated_head
from packnet_tf.packing.policy import own_weights
from packnet_tf.training.heads import FEATURE_NORM, as_in_training, next_features

IMAGES = np.random.default_rng(0).uniform(0, 255, (64, 8, 8, 3)).astype("float32")
DATA = tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(64, "int32"))).batch(16)


def normalised_trunk():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for _ in range(3):
        x = layers.Conv2D(16, 3, use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def test_looking_at_features_as_in_training_changes_nothing_random_numbers_included():
    trunk = keras.Sequential([normalised_trunk(), layers.Dropout(0.5, seed=1)])
    dropout = trunk.layers[-1]
    everything = [*trunk.variables, dropout.seed_generator.state]
    before = [np.array(variable) for variable in everything]
    features = np.array(as_in_training(trunk)(IMAGES))
    assert np.mean(features == 0) > 0.3  # training it is
    for old, variable in zip(before, everything, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))


def squared_norm(features):
    return np.mean(np.sum(np.square(features), axis=-1))


def test_features_are_scaled_to_one_squared_norm():
    trunk = normalised_trunk()
    head = calibrated_head(trunk, DATA, classes=3)
    scaled = head.layers[0](trunk(IMAGES))
    assert squared_norm(scaled) == pytest.approx(FEATURE_NORM, rel=1e-5)
    assert head.output_shape == (None, 3)


def test_a_head_begins_with_values_smaller_by_the_factor_of_the_rate():
    trunk = normalised_trunk()
    kernels = []
    for factor in (1.0, 2.0):
        keras.utils.set_random_seed(0)
        kernels.append(np.array(calibrated_head(trunk, DATA, 3, factor).layers[1].kernel))
    np.testing.assert_allclose(kernels[1], kernels[0] / 2, rtol=1e-6)
    keras.utils.set_random_seed(0)
    usual = layers.Dense(3)
    usual.build((None, 16))
    np.testing.assert_array_equal(kernels[0], np.array(usual.kernel))


def test_a_later_task_is_scaled_by_the_features_that_its_training_sees():
    net = packnet_tf.PackNet(normalised_trunk())
    model = net.add_task("first", layers.Dense(2))
    jolt(model)
    for variable in model.trainable_variables:  # other weights than the statistics are of
        variable.assign(4 * variable)
    net.prune(0.5)
    net.commit()
    lasting = [v for weight in net.state.weights.values() for v in (weight.packed, weight.owner)]
    lasting += [variable for _, variable in own_weights(net.state.trunk)]
    before = [np.array(variable) for variable in lasting]
    head = calibrated_head(next_features(net), DATA, 3)
    assert net.open_model is None
    for old, variable in zip(before, lasting, strict=True):
        np.testing.assert_array_equal(old, np.array(variable))
    model = net.add_task("second", head)
    parts = [model.trunk(IMAGES[place : place + 16], training=True) for place in range(0, 64, 16)]
    scale = head.layers[0].scale
    seen = squared_norm(scale * np.concatenate([np.array(part) for part in parts]))
    assert seen == pytest.approx(FEATURE_NORM, rel=1e-4)
