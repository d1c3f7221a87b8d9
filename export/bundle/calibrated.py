"""Graphs of a calibrated bundle: they compute with the integers that tasks share.

The first file of a bundle has a scale per output channel, the same for all tasks. A graph folds the
normalisation of its task into its convolutions, as a baked file does, and a gain is then a factor
of the scale. Where the gain is negative the sign goes to the integers, because ONNX Runtime
computes with integers only where scales are positive.

A later file may have larger scales, for weights beyond the range of the first. The integers of all
files meet in the largest scale: they are divided by it, and rounded again. All of this is done by
standard operators on constants, which ONNX Runtime computes once, when it loads a file.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.bundle.kernels import (
    exact_kernel,
    kernel_of,
    pieces_of,
    plain_graph,
    size_of,
)
from packnet_tf.export.bundle.shared_weights import (
    Kernel,
    Piece,
    SharedWeights,
    refused_changes,
)
from packnet_tf.export.bundle.stored import output_axis, precisions_of
from packnet_tf.export.graph.builder import GraphBuilder
from packnet_tf.export.graph.constants import merge_equal_constants
from packnet_tf.export.graph.layer_inputs import Feeds
from packnet_tf.export.graph.precision import (
    calibrated,
    checked_feeds,
    folded,
    replace_nodes,
    store_as_integers,
)
from packnet_tf.export.graph.rounding import round_kernels
from packnet_tf.export.graph.walk import node_reads
from packnet_tf.export.task_graph import TaskGraph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# Share of all shared weights that each task rounds for itself. More would round better, and ten
# tasks would take more than 0.40 times a float32 file.
OWN = 1 / 96
CLOSE = 1e-5  # relative error of a kernel that was multiplied by a factor per channel
SUFFIX = "_quantized"  # onnxruntime's quantizer appends it to the names of constants


@dataclasses.dataclass(frozen=True)
class IntegerKernel:
    """A packed kernel as a task reads it from the shared files.

    Attributes:
        pieces: what each file holds of it, with that file; a later one replaces earlier ones.
        channel: the axis of the output channels.
        computes: whether layers may compute with its integers. Otherwise they are multiplied by
            their scales when the file is loaded.
    """

    pieces: list[tuple[SharedWeights, Piece]]
    channel: int
    computes: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pieces[0][1].stored.shape

    @property
    def scale(self) -> np.ndarray:
        """The scale in which the pieces meet, float32 (channels,)."""
        return np.max([_scale(piece) for _, piece in self.pieces], axis=0).reshape(-1)

    def weights(self) -> np.ndarray:
        """Returns the weights that the task sees, float32."""
        found = np.zeros(self.shape, np.float32)
        for _, piece in self.pieces:
            found = np.where(piece.here, piece.stored.astype(np.float32) * _scale(piece), found)
        return found

    def ratios(self, factor: np.ndarray, scale: np.ndarray) -> list[np.ndarray]:
        """Returns by what the integers of each piece are multiplied.

        Args:
            factor: by what the weights are multiplied (channels,).
            scale: the scale of the result (channels,), float32.
        """
        factor, scale = self.along(factor), self.along(scale)
        return [
            # Exactly 1 or -1 where the scale is that of the piece.
            np.sign(factor) * ((_scale(piece) * np.abs(factor)).astype(np.float32) / scale)
            for _, piece in self.pieces
        ]

    def integers(self, ratios: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the integers that the nodes of `add` compute."""
        found = np.zeros(self.shape, np.float32)
        for (_, piece), ratio in zip(self.pieces, ratios, strict=True):
            found = np.where(piece.here, piece.stored.astype(np.float32) * ratio, found)
        return np.rint(found).astype(np.int8)

    def add(self, builder: GraphBuilder, ratios: Sequence[np.ndarray]) -> str:
        """Adds the nodes that compute the integers; returns the name of their result."""
        from onnx import TensorProto

        simple = all((ratio == 1).all() for ratio in ratios)
        found = builder.constant(np.zeros((), np.int8 if simple else np.float32))
        for (file, piece), ratio in zip(self.pieces, ratios, strict=True):
            with refused_changes(file):
                mask, values = piece.nodes(builder)
            if not simple:
                values = builder.node("Cast", values, to=TensorProto.FLOAT)
                values = builder.node("Mul", values, builder.constant(ratio))
            found = builder.node("Where", mask, values, found) if mask else values
        if simple:
            return found
        return builder.node("Cast", builder.node("Round", found), to=TensorProto.INT8)

    def along(self, values: np.ndarray) -> np.ndarray:
        """Returns values per channel in a shape that broadcasts."""
        axes = range(len(self.shape))
        return values.reshape([-1 if axis == self.channel else 1 for axis in axes])


def _scale(piece: Piece) -> np.ndarray:
    assert piece.scale is not None  # of int8
    return piece.scale.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Folded:
    """A packed kernel in a folded graph, multiplied by a factor per output channel.

    Attributes:
        kernel: the packed kernel.
        factor: the factors (channels,).
    """

    kernel: IntegerKernel
    factor: np.ndarray

    def wanted_scale(self) -> np.ndarray:
        """Returns the scales of its integers (channels,); 1 in channels whose weights become 0."""
        scale = (self.kernel.scale * np.abs(self.factor)).astype(np.float32)
        return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)

    def is_restored(self, array: np.ndarray) -> bool:
        """Returns whether weights are those that the graph computes with, in float32.

        Integers that are rounded twice may be half a step away.
        """
        if array.shape != self.kernel.shape:
            return False
        exact = self.kernel.weights() * self.kernel.along(self.factor)
        step = self.kernel.along(self.wanted_scale())
        ratios = self.kernel.ratios(self.factor, self.wanted_scale())
        again = np.any([np.abs(ratio) != 1 for ratio in ratios], axis=0)
        allowed = np.where(again, 0.501, 0.001) * step + CLOSE * np.abs(exact).max(initial=0)
        return bool((np.abs(array - exact) <= allowed).all())


def integer_graph(task: TaskGraph, files: list[SharedWeights], feeds: Feeds | None) -> "ModelProto":
    """Builds the graph of a task that computes with the integers of shared files.

    Args:
        task: the task.
        files: the files of a calibrated bundle.
        feeds: typical inputs; None for a graph that restores its weights to float32.
    """
    proto, read = baked_graph(task, files, feeds)
    builder = GraphBuilder(proto.graph)
    for name, (kernel, ratios) in read.items():
        builder.alias(name, kernel.add(builder, ratios))
    builder.close()
    baked = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    for tensor in baked:
        proto.graph.initializer.remove(tensor)
    merge_equal_constants(proto.graph)
    return proto


def baked_graph(
    task: TaskGraph, files: list[SharedWeights], feeds: Feeds | None
) -> "tuple[ModelProto, dict[str, tuple[IntegerKernel, list[np.ndarray]]]]":
    """Returns the graph with its integers as constants, and how they are read, by name."""
    plain = plain_graph(task)
    task.check_size(plain)
    task.check_plain(plain, task.comparison.batches(None, wide=True))
    if feeds is None:
        found = shared_kernels(task, files, False)
        return plain, _replace_constants(plain.graph, found)
    feeds, source = checked_feeds(plain, feeds), folded(plain)
    found = _folded_kernels(task, source.graph, integer_kernels(task, files))
    scales = {
        name: (each.kernel.channel, each.wanted_scale())
        for name, each in found.items()
        if each.kernel.computes
    }
    floats = found.keys() - scales
    excluded = [n.name for n in source.graph.node if not floats.isdisjoint(node_reads(n))]
    quantized = calibrated(source, feeds, scales=scales, excluded=excluded)
    read = _replace_constants(quantized.graph, found)
    round_kernels(quantized, source, feeds, 127, fixed=read)
    store_as_integers(quantized.graph)
    return replace_nodes(quantized, plain), read


def integer_kernels(task: TaskGraph, files: list[SharedWeights]) -> dict[str, IntegerKernel]:
    """Returns the kernels of a task that a calibrated bundle shares, by name.

    These are the packed ones and those of a stem. Small kernels are not shared: each task has its
    own integers, see `precisions_of`.
    """
    layouts, readers = task.converted.layouts, _readers(task.converted.proto.graph)
    shared = task.stem | task.packed.keys()
    every = [name for name, layout in layouts.items() if layout.source in shared]
    kinds = precisions_of([size_of(task, name) for name in every], "int8", OWN)
    kernels, computes = dict[str, Kernel](), dict[str, bool]()
    for name in [name for name, kind in zip(every, kinds, strict=True) if kind == "int8"]:
        kernel = kernel_of(task, name, "int8")
        axis = _integer_axis(readers[name], kernel.values.ndim)
        channel = output_axis(kernel.values.ndim) if axis is None else axis
        kernels[name] = dataclasses.replace(kernel, channel=channel)
        computes[name] = axis is not None
    pieces = _pieces(task, files, kernels)
    return {
        name: IntegerKernel(pieces[name], kernel.channel or 0, computes[name])
        for name, kernel in kernels.items()
    }


def _pieces(
    task: TaskGraph, files: list[SharedWeights], kernels: Mapping[str, Kernel]
) -> dict[str, list[tuple[SharedWeights, Piece]]]:
    """Returns what files hold of kernels, by name."""
    layouts = task.converted.layouts
    packed = {name: x for name, x in kernels.items() if layouts[name].source in task.packed}
    others = {name: x for name, x in kernels.items() if name not in packed}
    common = zip(others, files[0].common(list(others.values())), strict=True)
    pieces = {name: [(files[0], piece)] for name, piece in common}
    pieces |= {name: [] for name in packed}
    for file, found in pieces_of(task, files, list(packed), list(packed.values())):
        for name, piece in zip(packed, found, strict=True):
            if piece is not None:
                pieces[name].append((file, piece))
    return pieces


def check_files(task: TaskGraph, files: list[SharedWeights]) -> None:
    """Checks that the files of a calibrated bundle hold what a task reads.

    Raises:
        ValueError: they do not.
    """
    from onnx import GraphProto

    for kernel in integer_kernels(task, files).values():
        kernel.add(GraphBuilder(GraphProto()), [np.ones(())] * len(kernel.pieces))


def shared_kernels(
    task: TaskGraph, files: list[SharedWeights], calibrated: bool
) -> dict[str, Folded]:
    """Returns the kernels that a task's graph reads from shared files, by name.

    Args:
        task: the task.
        files: the shared files.
        calibrated: whether normalisations are folded into its convolutions.
    """
    kernels = integer_kernels(task, files)
    if calibrated:
        return _folded_kernels(task, folded(plain_graph(task)).graph, kernels)
    return {name: Folded(kernel, np.ones_like(kernel.scale)) for name, kernel in kernels.items()}


def _folded_kernels(
    task: TaskGraph, graph: "GraphProto", kernels: Mapping[str, IntegerKernel]
) -> dict[str, Folded]:
    """Finds packed kernels in a folded graph, by the names of its constants.

    They are known by their values: each is a kernel times a factor per output channel.
    """
    from onnx import TensorProto, numpy_helper

    found: dict[str, Folded] = {}
    exact = {name: exact_kernel(task, name) for name in kernels}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            for name, kernel in kernels.items():
                if kernel.shape == values.shape:
                    factor = _factor(values, exact[name], kernel.channel)
                    if factor is not None:
                        found[tensor.name] = Folded(kernel, factor)
                        break
    return found


def _factor(values: np.ndarray, kernel: np.ndarray, channel: int) -> np.ndarray | None:
    """Returns by what the channels of a kernel were multiplied; None if they were not."""
    ours, theirs = (
        np.moveaxis(x, channel, 0).reshape(x.shape[channel], -1) for x in (values, kernel)
    )
    largest = np.abs(theirs).argmax(1)[:, None]
    top = np.take_along_axis(theirs, largest, 1)
    factor = np.take_along_axis(ours, largest, 1) / np.where(top == 0, 1, top)
    allowed = CLOSE * np.abs(np.take_along_axis(ours, largest, 1))
    if not (np.abs(ours - factor * theirs) <= allowed).all():
        return None
    return np.where(top == 0, 1, factor).astype(np.float32)[:, 0]


def _replace_constants(
    graph: "GraphProto", found: Mapping[str, Folded]
) -> dict[str, tuple[IntegerKernel, list[np.ndarray]]]:
    """Replaces kernels in a graph by shared integers; returns how they are read, by name.

    Kernels that were not quantized are multiplied by their scales.
    """
    from onnx import TensorProto, helper, numpy_helper

    held = {tensor.name: tensor for tensor in graph.initializer}
    steps = {
        node.input[0]: numpy_helper.to_array(held[node.input[1]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[1] in held
    }
    read, nodes = dict[str, tuple[IntegerKernel, list[np.ndarray]]](), []
    for name, each in found.items():
        kernel, stored = each.kernel, name + SUFFIX
        if stored in steps:
            ratios = kernel.ratios(each.factor, steps[stored])
            held[stored].CopyFrom(numpy_helper.from_array(kernel.integers(ratios), stored))
        else:
            scale = each.wanted_scale()
            ratios = kernel.ratios(each.factor, scale)
            held[name].CopyFrom(numpy_helper.from_array(kernel.integers(ratios), stored))
            shaped = kernel.along(scale)
            graph.initializer.append(numpy_helper.from_array(shaped, f"{name}_step"))
            nodes.append(helper.make_node("Cast", [stored], [f"{name}_cast"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}_cast", f"{name}_step"], [name]))
        read[stored] = kernel, ratios
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])
    return read


def _readers(graph: "GraphProto") -> "dict[str, list[tuple[NodeProto, int]]]":
    """Returns the nodes that read each name, and at which place."""
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node_reads(node)):
            readers.setdefault(name, []).append((node, place))
    return readers


def _integer_axis(readers: list[tuple["NodeProto", int]], axes: int) -> int | None:
    """Returns the axis of the output channels of a kernel that only layers read, all alike.

    Others are not computed with integers: ONNX Runtime would restore tables of embeddings, for
    instance, in every run.
    """
    found = {_output_axis(node, axes) if place == 1 else None for node, place in readers}
    [axis, *others] = found
    return None if others else axis


def _output_axis(node: "NodeProto", axes: int) -> int | None:
    """Returns the axis of the output channels in a layer's kernel; None for other nodes."""
    turned = any(each.name == "transB" and each.i for each in node.attribute)
    if axes == 2:
        return {"Gemm": 0 if turned else 1, "MatMul": 1}.get(node.op_type)
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type)
