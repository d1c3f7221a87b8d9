"""What ONNX lacks is said of the Keras layer that needs it."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.export_helpers import answer
from helpers.pack_helpers import logits
from packnet_tf.export import export_onnx


def committed(shape, layer, dtype="float32"):
    """A pack whose trunk begins with a layer, of one task."""
    inputs = keras.Input(shape, dtype=dtype, name="given")
    features = layers.Flatten()(keras.ops.cast(layer(inputs), "float32"))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(4)(features)))
    net.add_task("one", layers.Dense(3))
    net.commit()
    return net


@pytest.mark.parametrize(
    ("shape", "layer", "dtype", "operator"),
    [
        ((1,), layers.Discretization([1.0, 2.0], name="odd"), "float32", "Bucketize"),
        ((1,), layers.IntegerLookup(vocabulary=[1, 2], name="odd"), "int32", "LookupTableFindV2"),
        ((1,), layers.Hashing(8, name="odd"), "int32", "StringToHashBucketFast"),
        ((64,), layers.MelSpectrogram(fft_length=16, name="odd"), "float32", "RFFT"),
        ((9, 9, 3), layers.Resizing(4, 4, antialias=True, name="odd"), "float32", "ScaleAndTran"),
    ],
)
def test_an_operator_that_onnx_lacks_is_named_with_its_layer(
    shape, layer, dtype, operator, tmp_path
):
    with pytest.raises(ValueError, match="Cannot export task 'one': its layer 'odd'") as error:
        export_onnx(committed(shape, layer, dtype), "one", tmp_path / "m.onnx")
    assert type(layer).__name__ in str(error.value)
    assert f"the operator '{operator}" in str(error.value)
    assert "apply it to the data" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_text_is_named_with_its_input(tmp_path):
    lookup = layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot")
    with pytest.raises(ValueError, match="Cannot export task 'one': its input 'given' is text"):
        export_onnx(committed((1,), lookup, "string"), "one", tmp_path / "m.onnx")


@pytest.mark.parametrize("function", ["celu", "elu", "selu"])
def test_exponentials_less_one_are_made_of_what_there_is(function, tmp_path):
    net = committed((4,), layers.Activation(function))
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = logits(net.task_model("one"), x)
    np.testing.assert_allclose(answer(tmp_path / "m.onnx", x), expected, rtol=1e-4, atol=1e-5)
