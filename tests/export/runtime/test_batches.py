"""Inputs that are given to an export have the shape of what the task takes, or are refused."""

import keras
import numpy as np
import pytest
from keras import layers

from helpers.pack_helpers import conv_trunk, packed
from packnet_tf.export import export_all, export_onnx


@pytest.fixture(scope="module")
def net():
    return packed(conv_trunk(), birds=0.5)


@pytest.mark.parametrize("kind", ["samples", "calibration", "evaluate"])
@pytest.mark.parametrize("shape", [(4, 9, 9, 1), (4,)])
def test_what_is_given_must_have_the_shape_that_the_task_takes(kind, shape, net, tmp_path):
    x = np.zeros(shape)
    given = {
        "samples": {"samples": {"birds": x}},
        "calibration": {"calibration": x, "precision": "int8"},
        "evaluate": {"evaluate": {"birds": (x, np.zeros(4))}},
    }[kind]
    with pytest.raises(ValueError) as error:
        export_all(net, tmp_path, tasks=["birds"], **given)
    wanted = ("batch", *net.task_model("birds").input_shape[1:])
    assert str(error.value) == (
        f"Inputs of shape {shape} are given for 'image', and the model takes {wanted}. Give them "
        "as the task was trained on them, resized and scaled, whatever the file does by itself."
    )


def test_an_axis_of_one_that_keras_adds_is_added_to_samples_too(tmp_path):
    inputs = keras.Input((8, 8, 1), name="image")
    net = packed(keras.Model(inputs, layers.Flatten()(layers.Conv2D(2, 3)(inputs))), one=0.5)
    x = np.random.default_rng(0).random((4, 8, 8)).astype("float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx", samples=x) < 1e-5
