"""Layers and operator sets on which the converter needs help."""

import os

import keras
import numpy as np
import onnx
import pytest
from keras import layers

from helpers.pack_helpers import conv_trunk, packed
from packnet_tf.export import export_onnx


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
