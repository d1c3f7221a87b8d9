"""From a plain Keras model to an ONNX graph."""

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.types import Tensor, Tensors
from packnet_tf.export.convert.baking import WeightLayout, bake, extract_weights
from packnet_tf.export.convert.supported import check_operators
from packnet_tf.export.graph.canonical import canonicalize
from packnet_tf.export.graph.padding import keep_zero_padding
from packnet_tf.export.options import DEFAULT_OPSET

if TYPE_CHECKING:
    from onnx import ModelProto
    from tf2onnx.graph import Graph, Node


def input_names(model: keras.Model, names: Sequence[str] | None = None) -> list[str]:
    """Names of the ONNX inputs: `image` for a single image, else the names of the Keras inputs.

    Args:
        model: a functional or sequential model.
        names: names to use instead, one per input.

    Raises:
        ValueError: their number is not that of the inputs.
    """
    inputs = keras.tree.flatten(model.inputs)
    if names is not None:
        if len(names) != len(inputs):
            raise ValueError(
                f"input_names has {len(names)} names, the model {len(inputs)} inputs; give one "
                "name per input."
            )
        return list(names)
    integers = keras.backend.standardize_dtype(inputs[0].dtype).startswith(("int", "uint"))
    if len(inputs) == 1 and (not integers or len(inputs[0].shape) > 2):
        return ["image"]
    return [tensor.name for tensor in inputs]


@dataclasses.dataclass(frozen=True)
class Converted:
    """A model in ONNX whose weights are still to be given.

    Attributes:
        proto: the `onnx.ModelProto`.
        layouts: the constants that its graph lacks, by name.
        weights: the variables of the Keras model whose values these are, by name.
    """

    proto: "ModelProto"
    layouts: dict[str, WeightLayout]
    weights: dict[str, keras.Variable]

    def bake(self) -> "ModelProto":
        """Gives the graph the values of the Keras model; returns the `onnx.ModelProto`."""
        bake(self.proto.graph, self.layouts, self.values(self.layouts))
        return self.proto

    def values(self, layouts: Mapping[str, WeightLayout]) -> dict[str, np.ndarray]:
        """What the weights that some constants are made of hold."""
        names = {layout.source for layout in layouts.values()}
        return {name: ops.convert_to_numpy(self.weights[name]) for name in names}


def to_onnx(
    model: keras.Model,
    *,
    names: Sequence[str],
    output_name: str = "logits",
    opset: int = DEFAULT_OPSET,
    batch_size: int | None = None,
) -> Converted:
    """Converts a Keras model, in inference mode, to ONNX.

    Args:
        model: a model of plain Keras layers; inputs of shape (batch, ...) and any dtype.
        names: one ONNX name per input.
        output_name: name of the output; several outputs get `_0`, `_1`, ... appended, and a dict
            of outputs keeps its names.
        opset: ONNX operator set version.
        batch_size: a fixed batch, or None for any.

    Returns:
        The graph, and the weights of two and more axes that it still lacks; see `Converted.bake`.

    Raises:
        RuntimeError: Keras does not run on TensorFlow, which the conversion needs.
        ValueError: the model computes with an operator that ONNX lacks.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"ONNX export needs Keras on TensorFlow, and it runs on {keras.backend.backend()}. "
            "Save the pack with net.save, then load and export it in a process started with "
            "KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)

    kernels = _kernels(model)
    signature = [
        tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype, name)
        for tensor, name in zip(keras.tree.flatten(model.inputs), names, strict=True)
    ]
    # The converter copies constants dozens of times: kernels stay outside, as further inputs.
    signature += [tf.TensorSpec(kernel.shape, kernel.dtype) for kernel in kernels.values()]

    def answer(*tensors: Tensor) -> dict[str, Tensor]:
        inputs = keras.tree.pack_sequence_as(model.input, tensors[: len(names)])
        state = zip(kernels.values(), tensors[len(names) :], strict=True)
        with keras.StatelessScope(state_mapping=list(state)):
            outputs = model(inputs, training=False)
        return _named(outputs, output_name, given)

    given = [*names, *kernels]
    # Keras wraps grouped convolutions in functions of their own, for XLA, which the converter
    # would leave as calls: run "eagerly" they are traced into the graph like everything else.
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        function = tf.function(answer, autograph=False).get_concrete_function(*signature)
    finally:
        tf.config.run_functions_eagerly(eagerly)
    # The function's own list of inputs has the constants that it captured too (the statistics of
    # a Normalization layer); ours are the first.
    inputs = [tensor.name for tensor in function.inputs[: len(signature)]]
    outputs = {tensor.name: name for name, tensor in function.structured_outputs.items()}
    convert = functools.partial(
        tf2onnx.convert.from_graph_def,
        tf2onnx.tf_loader.from_function(function, inputs, list(outputs)),
        name="packnet_tf",
        input_names=inputs,
        output_names=list(outputs),
        opset=opset,
        custom_op_handlers={"Erfc": (_erfc, []), "Expm1": (_expm1, [])},
        tensors_to_rename={**dict(zip(inputs, given, strict=True)), **outputs},
    )
    try:
        with _without_copies():
            graph, _ = convert()
    except Exception:  # an optimization that fails is left out only where there are copies
        graph, _ = convert()
    check_operators(graph, model, opset)
    layouts = extract_weights(graph.graph, opset, kernels)
    keep_zero_padding(graph.graph)
    canonicalize(graph.graph, set(layouts))
    return Converted(graph, layouts, kernels)


def _named(outputs: Tensors, name: str, taken: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of a model by their names in ONNX; a dict of several keeps its own."""
    flat = keras.tree.flatten(outputs)
    if len(flat) == 1:
        return {name: flat[0]}
    if isinstance(outputs, Mapping) and len(outputs) == len(flat):
        # As they are flattened: a plain dict by its keys, an OrderedDict as it is.
        names = {id(value): key for key, value in outputs.items()}
        own = [names[id(value)] for value in flat]
        return {f"{n}_output" if n in taken else n: x for n, x in zip(own, flat, strict=True)}
    return {f"{name}_{place}": output for place, output in enumerate(flat)}


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Keeps the converter from copying the graph before each of its optimizations.

    The copies, to go back to where an optimization fails, take almost half of its time. It makes
    none where this variable is set, whatever to.
    """
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _kernels(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of two and more axes, recurrent ones apart, by names that no other has."""
    # The converter knows a recurrent layer by its constants.
    layers = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.RNN)]
    recurrent = {id(variable) for layer in layers for variable in layer.weights}
    kernels = {}
    for variable in model.weights:
        if len(variable.shape) > 1 and id(variable) not in recurrent:
            name = variable.path
            while name in kernels:
                name += "_"
            kernels[name] = variable
    return kernels


def _erfc(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Erfc, which exact GELU uses and ONNX lacks, as 1 - Erf."""
    import onnx
    from tf2onnx import utils

    dtype = onnx.helper.tensor_dtype_to_np_dtype(context.get_dtype(node.output[0]))
    one = context.make_const(utils.make_name(name), np.ones((), dtype))
    node.type = "Erf"
    negative = context.insert_new_node_on_output("Neg", node.output[0], utils.make_name(name))
    add = context.insert_new_node_on_output("Add", negative.output[0], utils.make_name(name))
    add.input.append(one.output[0])


def _expm1(context: "Graph", node: "Node", name: str, args: list) -> None:
    """Expm1, which celu uses and ONNX lacks, as Exp - 1."""
    import onnx
    from tf2onnx import utils

    dtype = onnx.helper.tensor_dtype_to_np_dtype(context.get_dtype(node.output[0]))
    one = context.make_const(utils.make_name(name), np.ones((), dtype))
    node.type = "Exp"
    minus = context.insert_new_node_on_output("Sub", node.output[0], utils.make_name(name))
    minus.input.append(one.output[0])
