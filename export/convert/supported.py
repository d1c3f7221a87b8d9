"""Checks for what ONNX lacks, operators, inputs and state; the errors name the Keras layer."""

import contextlib
import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras

from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.text import quoted

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
        raise ValueError(
            f"{_named(_layer_of(node.name, model))} computes with the operator '{node.op_type}', "
            "which ONNX lacks. Leave the layer out of the trunk and apply it to the data, "
            "dataset.map(...), or write it with operators that ONNX has, keras.ops of arithmetic "
            "and matrices for instance."
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


def check_state(model: keras.Model) -> None:
    """Refuses recurrent layers that continue where the batch before ended.

    Raises:
        ValueError: there is one; the message names it and the remedy.
    """
    for layer in all_layers(model):
        if getattr(layer, "stateful", False):
            raise ValueError(
                f"{_named(layer)} is stateful, and ONNX files keep no state between runs. Build "
                "the trunk with stateful=False."
            )


@contextlib.contextmanager
def explained(model: keras.Model) -> Iterator[None]:
    """Turns errors of Keras, TensorFlow and the converter about a model into ValueErrors.

    Args:
        model: the Keras model that is traced or converted within the block.

    Raises:
        ValueError: anything was raised; the message names the layer, if it is known, and the
            remedy.
    """
    # Keras drops its own frames, those that name the layer, from the errors that it raises.
    filtering = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    except Exception as error:  # Keras, TensorFlow and the converter raise many classes
        layer = _layer_that_raised(error, model)
        what = remedy(model) if layer is None else remedy(model, "this layer")
        raise ValueError(
            f"{_named(layer)} cannot be converted to ONNX. {what}: {quoted(error)}"
        ) from error
    finally:
        if filtering:
            keras.config.enable_traceback_filtering()


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Says in ValueErrors what cannot be exported.

    Args:
        what: "task 'birds'", for instance.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Cannot export {what}: {error}") from error


@contextlib.contextmanager
def computed(what: str, model: keras.Model) -> Iterator[None]:
    """Turns errors of onnxruntime about a graph into ValueErrors with a remedy.

    Args:
        what: as for `named`.
        model: the Keras model that was converted.
    """
    try:
        yield
    except Exception as error:  # its classes have no common base
        if not type(error).__module__.startswith("onnxruntime."):
            raise
        raise ValueError(
            f"Cannot export {what}: onnxruntime cannot compute its graph. {remedy(model)}: "
            f"{quoted(error)}"
        ) from error


def remedy(model: keras.Model, layer: str = "the layer that it names") -> str:
    """Returns what to do about a model that converts to no graph, or to none that runs.

    Args:
        model: the model.
        layer: what to call the layer; by default one that the quoted error names.
    """
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(model.inputs)]
    if any(None in shape[1:] for shape in shapes):
        return (
            f"Its inputs have sizes that are not fixed, {', '.join(map(str, shapes))}: build "
            "the trunk with fixed ones"
        )
    return (
        f"Leave {layer} out of the trunk and apply it to the data, dataset.map(...), or try "
        "another opset"
    )


def _named(layer: keras.layers.Layer | None) -> str:
    return "it" if layer is None else f"its layer '{layer.name}' ({type(layer).__name__})"


def _layer_that_raised(error: Exception, model: keras.Model) -> keras.layers.Layer | None:
    """The innermost layer of a model in whose code an error was raised."""
    layers = [layer for layer in all_layers(model) if not isinstance(layer, keras.Model)]
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for layer in layers:
            if frame.f_locals.get("self") is layer:
                found = layer
    return found


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
