"""An unpacked task is a plain Keras model: LiteRT, once TensorFlow Lite, converts it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from helpers.pack_helpers import logits, packed

# Differences to Keras, relative to the largest logit. int8 rounds weights and activations.
TOLERANCES = {"float32": 1e-5, "int8": 0.1}


def trunk():
    """The layers of a small image network; the second convolution is wide enough for int8."""
    inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(16, 3, use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.ReLU()(layers.Conv2D(16, 3)(layers.DepthwiseConv2D(3, padding="same")(x)))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="trunk")


@pytest.fixture(scope="module")
def net():
    return packed(trunk(), one=0.5, two=0.5)


def images(count):
    return np.random.default_rng(count).normal(size=(count, 12, 12, 3)).astype("float32")


def converted(model, precision):
    """The bytes of a LiteRT file."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images(50))
    return converter.convert()


def answers(file, x):
    """What LiteRT's interpreter answers, image by image."""
    interpreter = tf.lite.Interpreter(model_content=file)
    interpreter.allocate_tensors()
    [given], [found] = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in x:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(found["index"])[0])
    return np.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("task", ["one", "two"])
def test_litert_answers_as_the_task_does(task, precision, net):
    found = answers(converted(net.unpack(task), precision), images(8))
    expected = logits(net.task_model(task), images(8))
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < TOLERANCES[precision]
    assert (difference > 1e-4) == (precision == "int8")  # int8 computes in int8
