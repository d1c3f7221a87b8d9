"""What a file is compared on."""

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

import packnet_tf
from packnet_tf.export import export_onnx
from packnet_tf.export.convert import handlers
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.task_graph import TaskGraph


def committed(function, dtype="int32", shape=(6,)):
    inputs = keras.Input(shape, dtype=dtype, name="given")
    features = layers.Flatten()(ops.cast(function(inputs), "float32"))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(4)(features)))
    net.add_task("one", layers.Dense(3))
    net.commit()
    return net


def compared(net, **options):
    """The lowest and highest integer of each batch."""
    batches = TaskGraph(net, "one", ExportOptions(**options)).comparison.batches()
    return [(int(arrays[0].min()), int(arrays[0].max())) for arrays, _ in batches]


def test_models_that_take_all_integers_are_compared_on_negative_and_larger_ones():
    first, *wider = compared(committed(lambda x: x))
    assert first == (0, 1)
    assert min(low for low, _ in wider) < -1
    assert max(high for _, high in wider) > 50


def test_unsigned_integers_are_not_negative():
    (first, wider) = compared(committed(lambda x: x, "uint8"))
    assert first == (0, 1)
    assert wider[0] == 0
    assert wider[1] > 50


def test_floats_that_are_no_picture_are_compared_below_zero_and_at_zero():
    batches = TaskGraph(committed(lambda x: x, "float32"), "one", ExportOptions()).comparison
    (first,), (second,) = (arrays for arrays, _ in batches.batches())
    assert first.min() >= 0
    assert -1 <= second.min() < 0 < second.max() <= 1
    assert not second[0].any()
    assert len(compared(committed(lambda x: x, "float32", (8, 8, 3)))) == 1


def test_pictures_of_bytes_have_all_values_at_once():
    [(low, high)] = compared(committed(lambda x: x, "uint8", (8, 8, 3)))
    assert low < 5
    assert high > 250


@pytest.mark.parametrize(
    ("function", "ranges"),
    [
        (layers.Embedding(2, 3), [(0, 1), (-1, 1)]),  # -1 is its last row, in the file too
        (lambda x: ops.sqrt(ops.cast(x, "float32")), [(0, 1)]),
    ],
    ids=["no such index", "not a number"],
)
def test_integers_that_a_model_does_not_take_are_left_out(function, ranges, tmp_path):
    net = committed(function)
    assert compared(net) == ranges
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5


def test_beside_a_gpu_integers_are_zeros_and_ones(monkeypatch):
    """There TensorFlow answers an index that a table lacks with zeros, and raises no error."""
    net = committed(lambda x: x)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["GPU:0"])
    assert compared(net) == [(0, 1)]


def test_lower_precisions_are_measured_on_zeros_and_ones():
    assert compared(committed(lambda x: x), precision="float16") == [(0, 1)]


def test_a_file_that_divides_integers_in_another_way_is_refused(monkeypatch, tmp_path):
    """The converter's own division rounds towards zero, which differs below zero alone."""
    net = committed(lambda x: ops.floor_divide(x, 7))
    monkeypatch.delitem(handlers.HANDLERS, "FloorDiv")
    for precision in ("float32", "float16"):
        with pytest.raises(ValueError, match="differs from Keras by"):
            export_onnx(net, "one", tmp_path / "m.onnx", precision=precision)
    with pytest.raises(ValueError, match=r"rounding\. Leave the layer that causes"):
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_wrong_below_zero_alone_is_refused(monkeypatch, tmp_path):
    """The converter's own selection is NaN where what is not selected is."""
    monkeypatch.delitem(handlers.HANDLERS, "SelectV2")
    net = committed(lambda x: ops.where(x > 0, ops.log(x), x), "float32")
    with pytest.raises(ValueError, match="NaN or infinite numbers in ONNX Runtime"):
        export_onnx(net, "one", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
