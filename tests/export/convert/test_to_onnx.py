"""Layers and operator sets on which the converter needs help."""

import importlib
import os

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from tf2onnx import utils

import packnet_tf
from helpers.export_helpers import answers
from helpers.pack_helpers import conv_trunk, mlp_trunk, packed
from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.export import export_onnx
from packnet_tf.export.convert.to_onnx import to_onnx


def test_zero_padding_before_pooling_is_zero_in_the_file_too(tmp_path):
    """onnxruntime would pad with the lowest number, and pool something negative at the border."""
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(3, 3, bias_initializer=keras.initializers.Constant(-5.0))(inputs)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    net = packed(keras.Model(inputs, layers.Flatten()(x), name="trunk"), one=0.5)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
    assert export_onnx(net, "one", tmp_path / "m.onnx", samples=x) < 1e-6


def test_recurrent_layers_are_operators_of_onnx(tmp_path, capfd):
    inputs = keras.Input((5, 3), name="sequence")
    net = packed(keras.Model(inputs, layers.LSTM(4)(inputs), name="trunk"), one=0.5)
    capfd.readouterr()
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-6
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "LSTM" in kinds
    assert "Loop" not in kinds
    assert "rewriter" not in capfd.readouterr().err


@pytest.mark.parametrize("opset", [13, 18])
def test_kernels_are_baked_in_under_any_opset(opset, tmp_path):
    inputs = keras.Input((8, 2), name="signal")
    x = layers.SeparableConv1D(3, 3)(layers.Conv1D(4, 3)(inputs))
    net = packed(keras.Model(inputs, layers.Flatten()(x), name="trunk"), one=0.5)
    assert export_onnx(net, "one", tmp_path / "m.onnx", opset=opset) < 1e-6
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert {"conv1d/kernel"} <= {entry.name for entry in graph.initializer}


def test_an_input_may_have_the_name_of_a_weight(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    for name in [variable.path for variable in net.unpack("one").weights[:2]]:
        assert export_onnx(net, "one", tmp_path / "m.onnx", input_names=[name]) < 1e-6
        assert [entry.name for entry in onnx.load(tmp_path / "m.onnx").graph.input] == [name]


def test_layers_that_the_plain_converter_fails_on_are_exported(tmp_path):
    # Statistics of a Normalization become inputs, grouped convolutions calls, exact GELU Erfc.
    inputs = keras.Input((8, 8, 4))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])(inputs)
    x = layers.Conv2D(8, 3, groups=4, activation="gelu", name="grouped")(x)
    trunk = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    net = packed(trunk, one=0.5)
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [value.name for value in graph.input] == ["image"]
    assert {node.domain for node in graph.node} == {""}


def test_an_optimization_of_the_converter_that_fails_is_left_out(tmp_path, monkeypatch):
    from tf2onnx import optimizer

    net, calls = packed(conv_trunk(), birds=0.5), []

    def fails():
        calls.append(1)
        raise RuntimeError("this one is broken")

    before = dict(os.environ)
    expected = export_onnx(net, "birds", tmp_path / "whole.onnx")
    monkeypatch.setitem(optimizer._optimizers, "broken", fails)
    assert export_onnx(net, "birds", tmp_path / "m.onnx") == pytest.approx(expected, abs=1e-6)
    assert len(calls) > 1
    assert dict(os.environ) == before


def test_a_graph_does_not_depend_on_those_converted_before(monkeypatch):
    importlib.import_module("tf2onnx.rewriter")  # takes a number when it is imported
    made = []
    make_name = utils.make_name
    monkeypatch.setattr(utils, "make_name", lambda name: made.append(make_name(name)) or made[-1])
    model = packed(conv_trunk(), one=0.5).unpack("one")
    graphs, names = [], []
    for before in (1, 960):
        monkeypatch.setattr(utils, "INTERNAL_NAME", before)
        graphs.append(to_onnx(model, names=["image"]).proto.SerializeToString())
        assert before == utils.INTERNAL_NAME
        names.append(made.copy())
        made.clear()
    assert names[0] == names[1]
    assert len({len(name.rpartition("__")[2]) for name in names[0]}) == 1  # sorted as texts
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_recurrent_layers_convert_beside_a_gpu_as_without_one(layer, monkeypatch):
    """There Keras computes them with cuDNN, unless it is told not to."""
    inputs = keras.Input((5, 3), name="sequence")
    x = layers.Bidirectional(layer(4, return_sequences=True))(inputs)
    net = packed(keras.Model(inputs, layer(4)(x), name="trunk"), one=0.5)
    model = net.unpack("one")
    expected = to_onnx(model, names=["sequence"]).bake()
    module = importlib.import_module("keras.src.backend.tensorflow.rnn")
    monkeypatch.setattr(module, "_is_gpu_available", lambda: True)
    assert to_onnx(model, names=["sequence"]).bake() == expected
    assert {inner.use_cudnn for inner in all_layers(model) if hasattr(inner, "use_cudnn")} == {
        "auto"
    }


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (lambda p, q: {"p": p, "q": p}, ["p", "q"]),
        (lambda p, q: {"p": [p], "q": q}, ["p", "q"]),
        (lambda p, q: {"p": {"x": p}, "q": (q,)}, ["p", "q"]),
        (lambda p, q: {"p": [p, q], "q": q}, ["logits_0", "logits_1", "logits_2"]),
        (lambda p, q: [p, p], ["logits_0", "logits_1"]),
    ],
)
def test_outputs_are_named_by_their_place_in_what_the_head_returns(outputs, names, tmp_path):
    features = keras.Input((8,))
    net = packnet_tf.PackNet(mlp_trunk())
    given = outputs(layers.Dense(3)(features), layers.Dense(2)(features))
    model = net.add_task("one", keras.Model(features, given))
    net.commit()
    assert export_onnx(net, "one", tmp_path / "m.onnx") < 1e-5
    assert [entry.name for entry in onnx.load(tmp_path / "m.onnx").graph.output] == names
    x = np.random.default_rng(0).random((5, 12)).astype("float32")
    expected = keras.tree.flatten(model(x, training=False))
    for found, wanted in zip(answers(tmp_path / "m.onnx", x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
