"""Inputs of a trunk stay what they are in every copy of its graph."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf


@keras.saving.register_keras_serializable("tests")
class AddMaybe(layers.Layer):
    """The sum of what there is."""

    def call(self, x, y=None):
        return x if y is None else x + y

    def compute_output_shape(self, shape, *others):
        return shape


@pytest.mark.parametrize("nested", [False, True])
def test_an_input_that_is_optional_stays_optional(nested, tmp_path):
    first, second = keras.Input((6,), name="a"), keras.Input((6,), name="b", optional=True)
    trunk = keras.Model([first, second], layers.Dense(4)(AddMaybe()(first, second)), name="inner")
    if nested:
        inputs = [keras.Input((6,), name="c"), keras.Input((6,), name="d", optional=True)]
        trunk = keras.Model(inputs, trunk(inputs), name="outer")
    x = np.ones((2, 6), "float32")
    expected = np.asarray(trunk([x, None]))
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", layers.Identity())
    assert np.array_equal(model([x, None]), expected)
    net.commit()
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    for answering in (net.task_model("one"), net.unpack("one"), loaded.task_model("one")):
        assert np.array_equal(answering([x, None]), expected)


@pytest.mark.parametrize("sequential", [False, True])
def test_an_input_that_is_sparse_stays_sparse(sequential):
    inputs = keras.Input((10,), sparse=True)
    trunk = keras.Model(inputs, layers.Dense(4)(inputs))
    if sequential:
        trunk = keras.Sequential([keras.Input((10,), sparse=True), layers.Dense(4)])
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", layers.Dense(3))
    assert model.input.sparse
    assert model.trunk.input.sparse
    net.commit()
    assert net.task_model("one").input.sparse
