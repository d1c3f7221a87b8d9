"""Exported graphs to change the precision of."""

import functools
import pathlib
import tempfile

import keras
import numpy as np
import onnx
from keras import layers
from onnx import helper, numpy_helper

from helpers.int8_sessions import session_of
from helpers.pack_helpers import conv_trunk, mlp_trunk, packed
from packnet_tf.export import export_onnx
from packnet_tf.export.graph.precision import to_precision

LOWER = ("float16", "int8", "calibrated int8")


def mobile_trunk():
    """A convolution, a depthwise one and a transposed one, normalised; 1340 weights."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(12, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="norm1")(x))
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm2")(x))
    x = layers.Conv2DTranspose(8, 3, name="transposed")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="mobile")


def recurrent_trunk():
    inputs = keras.Input((5, 3), name="sequence")
    return keras.Model(inputs, layers.GRU(6)(layers.LSTM(8, return_sequences=True)(inputs)))


def attention_trunk():
    inputs = keras.Input((6, 8), name="sequence")
    x = layers.Add()([inputs, layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)])
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))


def two_inputs_trunk():
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    extra = keras.Input((3,), name="extra")
    x = layers.Flatten()(layers.Embedding(10, 4, name="table")(tokens))
    x = layers.Dense(8, name="fc")(layers.Concatenate()([x, extra]))
    return keras.Model([tokens, extra], x, name="two")


TRUNKS = {
    "mlp": mlp_trunk,
    "conv": conv_trunk,
    "mobile": mobile_trunk,
    "recurrent": recurrent_trunk,
    "attention": attention_trunk,
    "two inputs": two_inputs_trunk,
}


def exported(trunk, path, **options):
    """The graph of the first of two tasks: half of the weights are another's or free, and 0."""
    export_onnx(packed(trunk, one=0.5, two=0.5), "one", path / "m.onnx", **options)
    return onnx.load(path / "m.onnx")


@functools.cache
def _graph(trunk):
    with tempfile.TemporaryDirectory() as folder:
        return exported(TRUNKS[trunk](), pathlib.Path(folder)).SerializeToString()


def graph_of(trunk):
    """The graph of a trunk of the table, exported once."""
    return onnx.load_from_string(_graph(trunk))


def feed(model, count=32, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for entry in model.graph.input:
        shape = (count, *(size.dim_value for size in entry.type.tensor_type.shape.dim[1:]))
        dtype = helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        normal = rng.normal(size=shape) if dtype == np.float32 else rng.integers(0, 10, shape)
        arrays[entry.name] = normal.astype(dtype)
    return arrays


def lower(model, kind):
    if kind == "calibrated int8":
        return to_precision(model, "int8", [feed(model, 64, 1)])
    return to_precision(model, kind)


def answer(model, feeds):
    return session_of(model.SerializeToString()).run(None, feeds)[0]


def cosine(first, second):
    first, second = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def constants(model):
    return {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}


def dequantized(model):
    """Every weight of the graph as it is calculated with, by the meaning of ONNX's operators."""
    known, found = constants(model), {}
    for node in model.graph.node:
        inputs = [known.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and inputs[0] is not None:
            weight, scale, zero = inputs
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [1] * weight.ndim
            shape[axis if scale.size > 1 else 0] = -1
            weight = weight.astype(np.int32) - zero.reshape(shape).astype(np.int32)
            found[node.input[0]] = weight * scale.reshape(shape)
        elif node.op_type == "MatMulInteger":
            # Its scale is multiplied in afterwards, and changes no zero.
            found[node.input[1]] = inputs[1].astype(np.int32) - inputs[3].astype(np.int32)
        elif node.op_type == "Gather" and inputs[0] is not None and inputs[0].ndim == 2:
            zero = known.get(node.input[0].replace("_quantized", "_zero_point"), np.int32(0))
            found[node.input[0]] = inputs[0].astype(np.float32) - zero.astype(np.float32)
        elif node.op_type == "Cast" and inputs[0] is not None:
            known[node.output[0]] = inputs[0].astype(np.float32)
        elif node.op_type == "Mul" and all(value is not None for value in inputs):
            found[node.output[0]] = inputs[0] * inputs[1]
    return {**{name: value for name, value in known.items() if value.dtype.kind == "f"}, **found}
