"""Checks for operators and inputs that ONNX lacks; the errors name the Keras layer."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras

from packnet_tf.backend.keras_internals import all_layers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def check_operators(proto: "ModelProto", model: keras.Model, opset: int) -> None:
    """Checks that a converted graph uses ONNX operators only.

    Args:
        proto: an `onnx.ModelProto`, its nodes named as the converter names them.
        model: the Keras model it comes from.
        opset: ONNX operator set version.

    Raises:
        ValueError: an operator is unknown to ONNX; the message names the layer and the remedy.
    """
    import onnx

    for node in _nodes(proto.graph):
        if node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type, opset):
            continue
        layer = _layer_of(node.name, model)
        who = "it" if layer is None else f"its layer '{layer.name}' ({type(layer).__name__})"
        raise ValueError(
            f"{who} computes with the operator '{node.op_type}', which ONNX lacks. Leave the layer "
            "out of the trunk and apply it to the data, dataset.map(...), or write it with "
            "operators that ONNX has, keras.ops of arithmetic and matrices for instance."
        )


def check_inputs(model: keras.Model) -> None:
    """Refuses inputs that no array of numbers can be given for.

    Raises:
        ValueError: there is one; the message names it and the remedy.
    """
    for tensor in keras.tree.flatten(model.inputs):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            raise ValueError(
                f"its input '{tensor.name}' is text, and exported files take numbers. Leave the "
                "layer that looks text up (StringLookup, TextVectorization) out of the trunk, "
                "apply it to the data, dataset.map(...), and build the trunk on what it gives."
            )
        if dtype == "bfloat16":
            raise ValueError(
                f"its input '{tensor.name}' is bfloat16, which NumPy and onnxruntime have no "
                "arrays of. Build the trunk on keras.Input(shape), whose float32 its layers cast "
                "by themselves."
            )


def _nodes(graph: "GraphProto") -> Iterator["NodeProto"]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _layer_of(name: str, model: keras.Model) -> keras.layers.Layer | None:
    """The innermost layer in whose name scope a node is; TensorFlow may number the scopes."""
    layers = all_layers(model, include_self=False)
    by_name = {layer.name: layer for layer in layers if not isinstance(layer, keras.Model)}
    for scope in reversed(name.split("/")[:-1]):
        for known in (scope, re.sub(r"_\d+$", "", scope)):
            if known in by_name:
                return by_name[known]
    return None
