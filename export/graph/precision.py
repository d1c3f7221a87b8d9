"""Converts an exported graph to float16 or int8, a half or a quarter of its size."""

import contextlib
import logging
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from packnet_tf.export.graph.layer_inputs import Feeds
from packnet_tf.export.graph.rounding import round_kernels, rounded_by_sums
from packnet_tf.export.graph.walk import graphs, node_reads, reads, within

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

PRECISIONS = ("float32", "float16", "int8")

# Operators that compute on integers after calibration, or pass them on. Sums, products and softmax
# are left out: in normalisation and attention that costs accuracy, between convolutions it saves no
# time.
CALIBRATED = [
    *("AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gather", "Gemm"),
    *("GlobalAveragePool", "MatMul", "MaxPool", "Pad", "Relu", "Reshape", "Slice", "Split"),
    *("Squeeze", "Transpose", "Unsqueeze"),
]
# Operators whose remaining float weights are stored as integers, and the axis with one scale per
# index: output channels, or the rows of a table. tf2onnx makes a Loop of layers that ONNX has no
# operator for, such as Keras's GRU.
STORED = {"Conv": 0, "ConvTranspose": 1, "Gather": 0, "GRU": 1, "LSTM": 1, "RNN": 1}
STORED |= {"Einsum": -1, "Loop": -1, "MatMul": -1}


def to_precision(
    model: "ModelProto",
    precision: str,
    calibration: Feeds | None = None,
    reduce_range: bool = False,
) -> "ModelProto":
    """Converts a graph to another precision, with the same inputs, outputs and metadata.

    Weights that are 0 stay exactly 0. The same graph always gives the same bytes.

    - `float16`: half precision inside. For GPUs. Numbers beyond 65504 become 65504.
    - `int8`, calibrated: 8-bit weights with a scale per channel, and 8-bit activations in the
      ranges found by calibration. Convolutions (not transposed ones) and dense layers are rounded
      so that their outputs for these inputs are close to those of float32, see `round_kernels`.
      For CPUs.
    - `int8`, not calibrated: matrix products use the range of the current batch, so an output
      depends slightly on the rest of the batch. Convolutions and recurrent layers store 8-bit
      weights but compute in float, because onnxruntime 1.31 is several times slower with integers.
      The same holds for embeddings in a graph with loops.

    Args:
        model: an `onnx.ModelProto` in float32 that holds its weights (less than 2 GB).
        precision: one of `PRECISIONS`; "float32" returns the graph unchanged.
        calibration: for "int8", a few hundred typical inputs: dicts of arrays (batch, ...) by
            input name.
        reduce_range: for "int8", whether weights use 7 of the 8 bits. It costs accuracy, and avoids
            a larger loss on x86 CPUs without VNNI, whose sums of products saturate.

    Returns:
        A new `onnx.ModelProto`; its inputs and outputs keep their types.

    Raises:
        ValueError: the precision is unknown, or the calibration does not fit.

    Example:
        >>> import onnx
        >>> model = onnx.load("model_birds.onnx")
        >>> smaller = to_precision(model, "int8", [{model.graph.input[0].name: images}])
        >>> onnx.save(smaller, "model_birds_int8.onnx")
    """
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}. Known: {str(PRECISIONS)[1:-1]}.")
    if precision != "int8":
        given = {"calibration": calibration is not None, "reduce_range": reduce_range}
        for name in [name for name, is_given in given.items() if is_given]:
            raise ValueError(f"{name} is for 'int8', not for '{precision}'. Leave it out.")
        return model if precision == "float32" else replace_nodes(_to_float16(model), model)
    feeds = None if calibration is None else checked_feeds(model, calibration)
    return replace_nodes(_to_int8(model, feeds, reduce_range), model)


def checked_feeds(model: "ModelProto", calibration: Feeds) -> list[dict[str, np.ndarray]]:
    """Checks calibration feeds, and casts them to the dtypes of the inputs."""
    from onnx.helper import tensor_dtype_to_np_dtype as dtype_of

    if not len(calibration):
        raise ValueError("calibration is empty. Give one feed or more: [{'image': images}].")
    dtypes = {each.name: dtype_of(each.type.tensor_type.elem_type) for each in model.graph.input}
    feeds = []
    for feed in calibration:
        given = sorted(feed) if isinstance(feed, Mapping) else type(feed).__name__
        if given != sorted(dtypes):
            raise ValueError(
                f"A feed of calibration has {given}. Give an array for each of {sorted(dtypes)}."
            )
        feeds.append({name: np.asarray(feed[name], dtype) for name, dtype in dtypes.items()})
        if not all(np.isfinite(array).all() for array in feeds[-1].values()):
            raise ValueError("calibration has NaN or infinite numbers. Leave those inputs out.")
    return feeds


def _to_float16(model: "ModelProto") -> "ModelProto":
    from onnx import ModelProto, TensorProto, numpy_helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = ModelProto.FromString(model.SerializeToString())  # the converter works in place
    for tensor in half.graph.initializer:
        # The converter raises smaller magnitudes to 2**-24, the smallest float16. An epsilon needs
        # that, because it is a divisor. A weight must not grow, so it is rounded here first.
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            values = np.where(np.abs(values) <= 2.0**-25, np.float32(0), values)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    empty = {tensor.name for tensor in half.graph.initializer if 0 in tensor.dims}
    for node in (node for part in graphs(half.graph) for node in part.node):
        if node.op_type == "Resize":  # the converter's cast of empty scales would count as scales
            node.input[:] = ["" if name in empty else name for name in node.input]
    unread = empty - set(reads(half.graph))
    for tensor in [tensor for tensor in half.graph.initializer if tensor.name in unread]:
        half.graph.initializer.remove(tensor)
    with _quiet():
        return convert_float_to_float16(half, keep_io_types=True)


def _to_int8(model: "ModelProto", feeds: Feeds | None, reduce_range: bool) -> "ModelProto":
    source = folded(model)
    if feeds is None:
        quantized = _quantized_weights(source, reduce_range)
    else:
        quantized = calibrated(source, feeds, reduce_range)
        round_kernels(quantized, source, feeds, 64 if reduce_range else 127)
    store_as_integers(quantized.graph)
    return quantized


def folded(model: "ModelProto") -> "ModelProto":
    """Returns a graph whose normalisations are folded into the convolutions before them."""
    from onnxruntime import quantization

    def fold(source: str, written: str) -> None:
        # Symbolic shapes would need sympy.
        quantization.quant_pre_process(source, written, skip_symbolic_shape=True)

    return _through_files(model, fold)


def calibrated(
    source: "ModelProto",
    feeds: Feeds,
    reduce_range: bool = False,
    scales: Mapping[str, tuple[int, np.ndarray]] | None = None,
    excluded: Iterable[str] = (),
) -> "ModelProto":
    """Quantizes weights and activations; each weight is rounded to the nearest integer.

    Args:
        source: a folded graph.
        feeds: typical inputs.
        reduce_range: whether weights use 7 of the 8 bits.
        scales: for weights by name, the axis of the output channels, and their scales; by default
            the largest weight of a channel becomes 127.
        excluded: names of nodes that stay in float32.
    """
    from onnxruntime import quantization

    rest, kind = iter(feeds), quantization.QuantType
    facts = {"quant_type": kind.QInt8, "zero_point": np.array(0, np.int8)}
    given: dict[str, list[dict[str, Any]]] = {}
    for name, (axis, steps) in (scales or {}).items():
        given[name] = [{**facts, "scale": np.array(scale)} for scale in steps]
        given[name][0]["axis"] = axis

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(rest, None)

    def quantize(folded: str, written: str) -> None:
        quantization.quantize_static(
            folded,
            written,
            Reader(),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=kind.QUInt8,  # the fast one on x86
            op_types_to_quantize=_without_lookups(CALIBRATED, source),
            nodes_to_exclude=list(excluded),
            # No products of two activations, as within attention.
            extra_options={"MatMulConstBOnly": True, "TensorQuantOverrides": given},
        )

    return _through_files(source, quantize)


def _quantized_weights(source: "ModelProto", reduce_range: bool) -> "ModelProto":
    """Quantizes the weights of matrix products, a Gemm included, and of embeddings."""
    from onnxruntime import quantization

    kinds = _without_lookups(["MatMul", "Gather"], source)

    def quantize(folded: str, written: str) -> None:
        quantization.quantize_dynamic(
            folded, written, kinds, per_channel=True, reduce_range=reduce_range
        )

    return _through_files(source, quantize)


def _without_lookups(kinds: list[str], model: "ModelProto") -> list[str]:
    """Leaves Gather out for graphs with loops.

    onnxruntime 1.31 aborts if a Loop reads the output of an integer Gather.
    """
    bodies = any(within(node) for node in model.graph.node)
    return [kind for kind in kinds if not (bodies and kind == "Gather")]


def _through_files(model: "ModelProto", convert: Callable[[str, str], None]) -> "ModelProto":
    """Converts a graph with a tool that reads and writes files."""
    import onnx

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, written = (str(pathlib.Path(folder) / name) for name in "ab")
        onnx.save(model, source)
        convert(source, written)
        return onnx.load(written)


def store_as_integers(graph: "GraphProto") -> None:
    """Stores the remaining float weights as integers, restored by a Cast and a Mul.

    onnxruntime computes both once, when it loads the graph. It would compute a DequantizeLinear
    for each batch.
    """
    from onnx import TensorProto, helper, numpy_helper

    kind, nodes = TensorProto.FLOAT, []
    floats = {c.name: c for c in graph.initializer if c.data_type == kind and len(c.dims) > 1}
    for node in graph.node:
        for name in filter(floats.__contains__, node.input if node.op_type in STORED else ()):
            stored, cast, scale = (f"{name}_{part}" for part in ("stored", "cast", "step"))
            weight = numpy_helper.to_array(floats[name])
            channel = STORED[node.op_type] % weight.ndim
            others = tuple(axis for axis in range(weight.ndim) if axis != channel)
            scales = np.abs(weight).max(others, keepdims=True, initial=1e-35) / 127  # never 0
            # A lookup adds up no weights.
            table = node.op_type == "Gather"
            steps = weight / scales
            steps = np.rint(steps) if table else rounded_by_sums(steps, channel)
            integers = numpy_helper.from_array(steps.astype(np.int8), stored)
            floats.pop(name).CopyFrom(integers)
            graph.initializer.append(numpy_helper.from_array(scales, scale))
            nodes.append(helper.make_node("Cast", [stored], [cast], to=kind))
            nodes.append(helper.make_node("Mul", [cast, scale], [name]))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def replace_nodes(made: "ModelProto", model: "ModelProto") -> "ModelProto":
    """Returns the original model with the new nodes and constants, in a reproducible order."""
    finished, nodes = type(model)(), made.graph.node
    finished.CopyFrom(model)
    del finished.graph.node[:], finished.graph.initializer[:], finished.graph.value_info[:]
    # The tools append casts at the end, and order constants by onnxruntime's hash tables.
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}
    needs = {
        at: [makers[name] for name in node_reads(node) if name in makers]
        for at, node in enumerate(nodes)
    }
    finished.graph.node.extend(nodes[at] for at in TopologicalSorter(needs).static_order())
    finished.graph.initializer.extend(sorted(made.graph.initializer, key=lambda c: c.name))
    return finished


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the tools' warnings, and raises errors that they would only log."""

    def stop(record: logging.LogRecord) -> NoReturn:
        raise RuntimeError(f"onnxruntime cannot convert the graph: {sys.exc_info()[1] or record}")

    handler, disabled = logging.Handler(logging.ERROR), logging.root.manager.disable
    handler.emit = stop  # type: ignore[method-assign]  # this handler is local to the block
    handler.addFilter(logging.Filter("onnxruntime"))
    logging.root.addHandler(handler)
    logging.disable(max(disabled, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(handler)
