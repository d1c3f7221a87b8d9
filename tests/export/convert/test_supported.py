"""What ONNX lacks is said of the Keras layer that needs it."""

import keras
import pytest
from keras import layers

import packnet_tf
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


def test_layers_that_keep_state_are_refused(tmp_path):
    inputs = keras.Input(batch_shape=(2, 5, 3))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.LSTM(4, stateful=True, name="odd")(inputs)))
    net.add_task("one", layers.Dense(3))
    net.commit()
    with pytest.raises(ValueError) as error:
        export_onnx(net, "one", tmp_path / "m.onnx", batch_size=2)
    assert str(error.value) == (
        "Cannot export task 'one': its layer 'odd' (LSTM) is stateful, and ONNX files keep no "
        "state between runs. Build the trunk with stateful=False."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_takes_fixed_sizes_alone_is_named(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = layers.UpSampling2D(2, interpolation="bilinear", name="odd")(layers.Conv2D(4, 3)(inputs))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    net.add_task("one", layers.Dense(3))
    net.commit()
    filtering = keras.config.is_traceback_filtering_enabled()
    with pytest.raises(ValueError) as error:
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert str(error.value).startswith(
        "Cannot export task 'one': its layer 'odd' (UpSampling2D) cannot be converted to ONNX. Its "
        "inputs have sizes that are not fixed, (None, None, None, 3): build the trunk with fixed "
        "ones: "
    )
    assert keras.config.is_traceback_filtering_enabled() == filtering
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_converter_are_said_once(tmp_path, capfd):
    net = committed((1,), layers.Discretization([1.0, 2.0], name="odd"))
    capfd.readouterr()
    with pytest.raises(ValueError, match="its layer 'odd'"):
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert capfd.readouterr().err == ""
