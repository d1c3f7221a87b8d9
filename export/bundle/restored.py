"""Graphs of a bundle that restore packed weights to float32, and constants that they share."""

import collections
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from packnet_tf.export.bundle import owner_codes
from packnet_tf.export.bundle.kernels import kernel_of, pieces_of, plain_graph, size_of
from packnet_tf.export.bundle.shared_weights import SharedWeights, refused_changes
from packnet_tf.export.bundle.stored import decoder, precisions_of
from packnet_tf.export.convert.baking import bake
from packnet_tf.export.graph.builder import GraphBuilder, external
from packnet_tf.export.graph.canonical import shorten_names
from packnet_tf.export.graph.constants import digest
from packnet_tf.export.task_graph import TaskGraph

if TYPE_CHECKING:
    from onnx import ModelProto

SMALL = 256  # bytes; smaller constants stay in the graphs
# A task and its ONNX model.
Graph: TypeAlias = "tuple[TaskGraph, ModelProto]"


def graphs_with_references(
    tasks: Iterable[TaskGraph],
    files: list[SharedWeights],
    share: "Callable[[TaskGraph, list[SharedWeights]], ModelProto]",
) -> list[Graph]:
    """Builds the graphs of tasks with references to shared files in place of weights.

    Args:
        tasks: the tasks; their plain models are dropped.
        files: the shared files of the bundle, both existing ones and those to write.
        share: builds the graph of a task, such as `restored_graph`.

    Returns:
        Pairs of a task and its `onnx.ModelProto`.

    Raises:
        ValueError: an existing file does not hold the weights of the pack.
    """
    pairs = list[Graph]()
    for task in tasks:  # one at a time: each plain model takes the memory of a whole network
        pairs.append((task, share(task, files)))
        task.drop_model()
    _share_constants(pairs, files)
    for _, proto in pairs:
        shorten_names(proto.graph)
    return pairs


def restored_graph(task: TaskGraph, files: list[SharedWeights]) -> "ModelProto":
    """Builds the graph of a task that restores its packed weights to float32."""
    proto, layouts = task.converted.proto, task.converted.layouts
    shared = [name for name, layout in layouts.items() if layout.source in task.packed]
    if task.options.precision != "float32":
        task.check_plain(plain_graph(task), task.comparison.batches(None, wide=True))
    builder, weights = GraphBuilder(proto.graph), [""] * len(shared)
    kinds = precisions_of([size_of(task, name) for name in shared], files[0].precision)
    kernels = [kernel_of(task, name, kind) for name, kind in zip(shared, kinds, strict=True)]
    for file, pieces in pieces_of(task, files, shared, kernels):
        with refused_changes(file):
            for place, piece in enumerate(pieces):
                if piece is not None:
                    mask, name = piece.nodes(builder)
                    put = functools.partial(file.external, builder)
                    value = decoder(builder, piece.stored, piece.scale, put)(name)
                    if weights[place]:
                        weights[place] = builder.node("Where", mask, value, weights[place])
                    else:
                        weights[place] = owner_codes.masked(builder, value, mask, np.dtype("f4"))
    for name, kernel in zip(shared, weights, strict=True):
        builder.alias(name, kernel)
    builder.close()
    own = {name: layout for name, layout in layouts.items() if name not in shared}
    bake(proto.graph, own, task.converted.values(own))
    return proto


def _share_constants(pairs: list[Graph], files: list[SharedWeights]) -> None:
    """Moves constants that several graphs have, such as shared biases, to a shared file."""
    from onnx import TensorProto, numpy_helper

    held = []
    for task, proto in pairs:
        # A graph never reads a file that was written for a later task.
        theirs = [file for file in files if file.first <= task.number]
        for tensor in proto.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                array = numpy_helper.to_array(tensor)
                # Integers are shapes and indices. ONNX Runtime needs them for shape inference,
                # before it reads external data.
                if array.nbytes >= SMALL and array.dtype.kind == "f":
                    held.append((tensor, array, digest(array), theirs))
    counts = collections.Counter(key for _, _, key, _ in held)
    for tensor, array, key, theirs in held:
        known = [file for file in theirs if key in file.index]
        if not known and counts[key] > 1:
            known = [file for file in theirs if not file.complete]
        if known:
            [file, *_] = known
            offset = file.put(array, key)
            tensor.CopyFrom(external(tensor.name, file.name, offset, array.dtype, array.shape))
