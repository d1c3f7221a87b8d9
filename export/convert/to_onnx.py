"""Converts a plain Keras model to an ONNX graph."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.types import Tensor, Tensors
from packnet_tf.export.convert.baking import WeightLayout, bake, extract_weights
from packnet_tf.export.convert.handlers import HANDLERS, REWRITERS
from packnet_tf.export.convert.quiet import quiet_tools
from packnet_tf.export.convert.supported import check_operators, explained
from packnet_tf.export.graph.canonical import canonicalize
from packnet_tf.export.graph.outputs import is_output_name
from packnet_tf.export.graph.padding import keep_zero_padding
from packnet_tf.export.options import DEFAULT_OPSET

if TYPE_CHECKING:
    from onnx import ModelProto


def input_names(model: keras.Model, names: Sequence[str] | None = None) -> list[str]:
    """Returns the names of the ONNX inputs: `image` for a single image, else Keras's names.

    An input with the name of an output, `logits`, becomes `logits_input`.

    Args:
        model: a Functional or Sequential model.
        names: names to use instead, one per input.

    Raises:
        ValueError: there is not one name per input.
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
    return [f"{x.name}_input" if is_output_name(x.name) else x.name for x in inputs]


@dataclasses.dataclass(frozen=True)
class Converted:
    """An ONNX model without its weights, and the Keras variables that hold them.

    Attributes:
        proto: the `onnx.ModelProto`.
        layouts: the layouts of the constants that its graph lacks, by name.
        weights: the variables of the Keras model that hold their values, by name.
    """

    proto: "ModelProto"
    layouts: dict[str, WeightLayout]
    weights: dict[str, keras.Variable]

    def bake(self) -> "ModelProto":
        """Adds the weights of the Keras model to the graph; returns the `onnx.ModelProto`."""
        bake(self.proto.graph, self.layouts, self.values(self.layouts))
        return self.proto

    def values(self, layouts: Mapping[str, WeightLayout]) -> dict[str, np.ndarray]:
        """Returns the values of the weights that some layouts start from, by name."""
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
    """Converts a Keras model in inference mode to ONNX.

    Args:
        model: a model of plain Keras layers; inputs of shape (batch, ...) and any dtype.
        names: one ONNX name per input.
        output_name: name of the output. Several outputs are named `NAME_0`, `NAME_1`, ...; a dict
            of outputs keeps its keys.
        opset: ONNX operator set version.
        batch_size: a fixed batch size, or None for any.

    Returns:
        The graph, without its weights of two or more axes; see `Converted.bake`.

    Raises:
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: the model computes with an operator that ONNX lacks, or cannot be traced with
            inputs of its shapes.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"ONNX export needs Keras on TensorFlow, and it runs on {keras.backend.backend()}. "
            "Save the pack with net.save, then load and export it in a process started with "
            "KERAS_BACKEND=tensorflow."
        )
    with quiet_tools():
        return _convert(model, names, output_name, opset, batch_size)


def _convert(
    model: keras.Model,
    names: Sequence[str],
    output_name: str,
    opset: int,
    batch_size: int | None,
) -> Converted:
    import tensorflow as tf
    import tf2onnx

    kernels = _kernels(model, names)
    signature = [
        tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype, name)
        for tensor, name in zip(keras.tree.flatten(model.inputs), names, strict=True)
    ]
    # The converter copies constants dozens of times, so kernels are passed as inputs instead.
    signature += [tf.TensorSpec(kernel.shape, kernel.dtype) for kernel in kernels.values()]

    def answer(*tensors: Tensor) -> dict[str, Tensor]:
        inputs = keras.tree.pack_sequence_as(model.input, tensors[: len(names)])
        state = zip(kernels.values(), tensors[len(names) :], strict=True)
        with keras.StatelessScope(state_mapping=list(state)):
            outputs = model(inputs, training=False)
        return _outputs_by_name(outputs, output_name, given)

    given = [*names, *kernels]
    # Keras wraps grouped convolutions in a tf.function, for XLA. The converter would leave it as a
    # function call. With functions run eagerly its operations are traced into our graph.
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with _without_cudnn(model), _without_loops(model), explained(model):
            function = tf.function(answer, autograph=False).get_concrete_function(*signature)
    finally:
        tf.config.run_functions_eagerly(eagerly)
    # The function's inputs end with the constants that it captured (the statistics of a
    # Normalization layer). Ours come first.
    inputs = [tensor.name for tensor in function.inputs[: len(signature)]]
    outputs = {tensor.name: name for name, tensor in function.structured_outputs.items()}
    convert = functools.partial(
        tf2onnx.convert.from_graph_def,
        tf2onnx.tf_loader.from_function(function, inputs, list(outputs)),
        name="packnet_tf",
        input_names=inputs,
        output_names=list(outputs),
        opset=opset,
        custom_op_handlers=HANDLERS,
        custom_rewriter=REWRITERS,
        tensors_to_rename={**dict(zip(inputs, given, strict=True)), **outputs},
    )
    try:
        with _without_copies(), _same_numbers():
            graph, _ = convert()
    except Exception:  # with copies, the converter skips an optimization that fails
        with explained(model), _same_numbers():
            graph, _ = convert()
    check_operators(graph, model, opset)
    layouts = extract_weights(graph.graph, opset, kernels)
    keep_zero_padding(graph.graph)
    canonicalize(graph.graph, set(layouts))
    return Converted(graph, layouts, kernels)


def _outputs_by_name(outputs: Tensors, name: str, taken: Sequence[str]) -> dict[str, Tensor]:
    """Returns the outputs of a model by ONNX name; a dict of several outputs keeps its keys."""
    # In the order in which Keras flattens them: a dict sorted by key, an OrderedDict as it is.
    paths, flat = zip(*keras.tree.flatten_with_path(outputs), strict=True)
    if len(flat) == 1:
        return {name: flat[0]}
    if isinstance(outputs, Mapping):
        own = [str(path[0]) for path in paths]
        if len(set(own)) == len(own):  # one output per key, which may be in a list of its own
            return {f"{n}_output" if n in taken else n: x for n, x in zip(own, flat, strict=True)}
    return {f"{name}_{place}": output for place, output in enumerate(flat)}


@contextlib.contextmanager
def _without_cudnn(model: keras.Model) -> Iterator[None]:
    """Keeps recurrent layers from cuDNN's operators, which Keras takes on a GPU and ONNX lacks."""
    layers = [layer for layer in all_layers(model) if hasattr(layer, "use_cudnn")]
    before = [layer.use_cudnn for layer in layers]
    for layer in layers:
        layer.use_cudnn = False
    try:
        yield
    finally:
        for layer, choice in zip(layers, before, strict=True):
            layer.use_cudnn = choice


@contextlib.contextmanager
def _without_loops(model: keras.Model) -> Iterator[None]:
    """Makes TimeDistributed call its layer once, with the steps as further examples of the batch.

    Keras calls the layer for each step; of an unknown number of steps, the converter makes as many
    as there are examples.
    """
    layers = [x for x in all_layers(model) if isinstance(x, keras.layers.TimeDistributed)]
    for layer in layers:
        layer.__dict__["call"] = functools.partial(_call_at_once, layer.layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def _call_at_once(
    layer: keras.Layer, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
) -> Tensor:
    """Calls a layer in inference mode on inputs (batch, steps, ...); returns the same form."""
    batch, steps, *shape = ops.shape(inputs)
    masked = {}
    if mask is not None and layer._call_has_mask_arg:  # noqa: SLF001  as TimeDistributed asks
        masked["mask"] = ops.reshape(mask, (batch * steps, *ops.shape(mask)[2:]))
    # Its `call`, as in TimeDistributed: the layer's own inputs are not cast again.
    answers = layer.call(ops.reshape(inputs, (batch * steps, *shape)), **masked)
    return ops.reshape(answers, (batch, steps, *ops.shape(answers)[1:]))


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Keeps the converter from copying the graph before each optimization.

    It copies the graph so that it can undo an optimization that fails. The copies take almost half
    of its time. It makes none if this environment variable is set, to any value.
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


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """Makes the converter number the nodes of each graph alike.

    It goes on counting from one conversion to the next, and sorts nodes by name. Where the numbers
    became a digit longer within a graph, "Transpose__1000" came before "Transpose__999", and its
    optimizations left transpositions in that graph.
    """
    from tf2onnx import utils

    before = utils.INTERNAL_NAME
    utils.INTERNAL_NAME = 1_000_000  # so many that no graph needs a digit more
    try:
        yield
    finally:
        utils.INTERNAL_NAME = before


def _kernels(model: keras.Model, taken: Sequence[str]) -> dict[str, keras.Variable]:
    """Returns the weights of two or more axes outside recurrent layers, by names not taken."""
    # The converter recognizes a recurrent layer by its constants, so those must stay constants.
    layers = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.RNN)]
    recurrent = {id(variable) for layer in layers for variable in layer.weights}
    kernels = {}
    for variable in model.weights:
        if len(variable.shape) > 1 and id(variable) not in recurrent:
            name = variable.path
            while name in kernels or name in taken:
                name += "_"
            kernels[name] = variable
    return kernels
