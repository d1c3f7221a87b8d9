"""The kernels of a task in the layout of its graph, and what shared files hold of them."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from packnet_tf.export.bundle.shared_weights import Kernel, Piece, SharedWeights
from packnet_tf.export.convert.baking import WeightLayout, bake
from packnet_tf.export.task_graph import TaskGraph
from packnet_tf.packing.weight import PackedWeight

if TYPE_CHECKING:
    from onnx import ModelProto


def plain_graph(task: TaskGraph) -> "ModelProto":
    """Returns the graph of a task with its weights in float32."""
    plain, layouts = type(task.converted.proto)(), task.converted.layouts
    plain.CopyFrom(task.converted.proto)
    bake(plain.graph, layouts, task.converted.values(layouts))
    return plain


def size_of(task: TaskGraph, name: str) -> int:
    """Returns the number of weights in a kernel of a task's graph."""
    return math.prod(task.converted.weights[task.converted.layouts[name].source].shape)


def kernel_of(task: TaskGraph, name: str, kind: str) -> Kernel:
    """Returns a packed kernel of a task's graph, or one of a stem.

    Args:
        task: the task.
        name: the kernel's name in its graph.
        kind: how it is stored, see `encode`.
    """
    layout = task.converted.layouts[name]
    if layout.source not in task.packed:
        values = exact_kernel(task, name)
        return Kernel(values, np.ones(values.shape, np.uint8), kind)
    weight = task.packed[layout.source]
    # Half precision is used in training only; the graph computes in float32.
    values = layout(ops.convert_to_numpy(weight.packed).astype(np.float32, copy=False))
    return Kernel(values, layout(ops.convert_to_numpy(weight.owner)), kind)


def exact_kernel(task: TaskGraph, name: str) -> np.ndarray:
    """Returns a kernel in float32, as the task sees it."""
    layout = task.converted.layouts[name]
    [values] = task.converted.values({name: layout}).values()
    return layout(values)


def pieces_of(
    task: TaskGraph, files: list[SharedWeights], names: Sequence[str], kernels: Sequence[Kernel]
) -> Iterator[tuple[SharedWeights, Iterable[Piece | None]]]:
    """Yields files, and for each kernel the part that the task reads from the file.

    A later one replaces what it has of those before. The pieces of a calibrated bundle have the
    scales of the first file or larger ones, so that most meet in one scale without rounding again.

    Args:
        task: the task.
        files: the shared files.
        names: names of packed kernels in its graph.
        kernels: the same, see `kernel_of`.
    """
    for file in files if kernels else ():
        if file.first == 1:
            pieces: Iterable[Piece] = file.whole(kernels, task.sees)
            if file.calibrated:
                pieces = list(pieces)
                kernels = [
                    dataclasses.replace(kernel, least=piece.scale)
                    for kernel, piece in zip(kernels, pieces, strict=True)
                ]
            yield file, pieces
        elif not set(file.owners).isdisjoint(task.sees):
            yield file, file.owned(kernels)
        if task.overlaid and file.first <= task.number <= file.last:
            yield (
                file,
                file.overlaid(
                    [
                        _overlay(task, name, kernel)
                        for name, kernel in zip(names, kernels, strict=True)
                    ]
                ),
            )


def _overlay(task: TaskGraph, name: str, kernel: Kernel) -> Kernel:
    layout = task.converted.layouts[name]
    values, here = overlay_of(task.packed[layout.source], layout)
    return dataclasses.replace(kernel, values=values, owner=here)


def overlay_of(weight: PackedWeight, layout: WeightLayout) -> tuple[np.ndarray, np.ndarray]:
    """Returns a task's own values for a packed weight, and a mask that is True where they count.

    Args:
        weight: the packed weight in the view of a task with an overlay.
        layout: brings it into the graph's layout.
    """
    trainable, claim = map(ops.convert_to_numpy, weight.trained)
    return layout(trainable.astype(np.float32, copy=False)), layout(claim > 0)
