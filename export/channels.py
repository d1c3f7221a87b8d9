"""Tensors that hold channels, and the nodes that only move the channels about.

- Pooling, Transpose, Pad, and ReduceMean and ReduceMax over other axes pass channels on. Where
  zeros are padded, only 0 stays a constant.
- Reshape, Flatten, Squeeze and Unsqueeze pass them on where all sizes but the batch's are known and
  one axis of the result tells the channel: after Flatten, it has H * W entries for each.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from packnet_tf.export.graph import Graph, attribute, batch_stays, pads

UNKNOWN = np.float32(np.nan)


@dataclasses.dataclass(eq=False)
class Channels:
    """Channels that exist together or not at all.

    Attributes:
        count: how many there are.
        layers: how many layers make them.
        fixed: whether something reads them that has no rule.
        sums: the layers that sum over them.
        edits: what takes them out of the graph, given which stay: bool, shape (count,).
    """

    count: int
    layers: int = 1
    fixed: bool = False
    sums: list["Sum"] = dataclasses.field(default_factory=list)
    edits: list[Callable[[np.ndarray], None]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that has channels along one axis, of n entries.

    Attributes:
        channels: the channels.
        rank: how many axes the tensor has.
        axis: the one that has the channels.
        labels: int, shape (n,): which channel an entry belongs to.
        values: float, shape (n,): the constant that an entry is everywhere, NaN where it varies.
    """

    channels: Channels
    rank: int
    axis: int
    labels: np.ndarray
    values: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """One value per entry, with an axis of size 1 for every other axis of the tensor."""
        return values.reshape([-1 if axis == self.axis else 1 for axis in range(self.rank)])

    def zeros_only(self) -> "Tensor":
        """The tensor after zeros were mixed in."""
        return dataclasses.replace(self, values=np.where(self.values == 0, self.values, UNKNOWN))


@dataclasses.dataclass(frozen=True, eq=False)
class Sum:
    """A layer that sums over the n entries of a tensor.

    Attributes:
        node: the layer; its input 1 is the kernel.
        axis: the axis of the kernel that is summed over.
        tensor: what it reads.
        read: bool, shape (n,): whether the kernel has a weight for the entry that is not 0.
        bias: the node and the input of it that can take up what constants add; None if none can.
    """

    node: object
    axis: int
    tensor: Tensor
    read: np.ndarray
    bias: tuple | None


def pool(graph: Graph, node, tensor: Tensor) -> Tensor | None:
    if tensor.axis != 1:
        return None
    # The padding of a maximum is lower than anything; that of an average may count as zeros.
    padded = pads(node) or attribute(node, "ceil_mode", 0)
    return tensor.zeros_only() if padded and attribute(node, "count_include_pad", 0) else tensor


def reduce(graph: Graph, node, tensor: Tensor) -> Tensor | None:
    axes = attribute(node, "axes", graph.constant(node, 1))
    axes = {int(axis) % tensor.rank for axis in (range(tensor.rank) if axes is None else axes)}
    if not axes or tensor.axis in axes:
        return None
    if attribute(node, "keepdims", 1):
        return tensor
    axis = tensor.axis - sum(axis < tensor.axis for axis in axes)
    return dataclasses.replace(tensor, rank=tensor.rank - len(axes), axis=axis)


def transpose(graph: Graph, node, tensor: Tensor) -> Tensor:
    order = list(attribute(node, "perm", range(tensor.rank)[::-1]))
    return dataclasses.replace(tensor, axis=order.index(tensor.axis))


def pad(graph: Graph, node, tensor: Tensor) -> Tensor | None:
    sizes, filler = graph.constant(node, 1), graph.constant(node, 2)
    if sizes is None or len(sizes) != 2 * tensor.rank or any(node.input[3:]):
        return None
    if attribute(node, "mode", b"constant") != b"constant" or any(
        sizes[tensor.axis :: tensor.rank]
    ):
        return None
    if any(node.input[2:]) and (filler is None or filler != 0):
        return None
    return tensor.zeros_only()


def reshape(graph: Graph, node, tensor: Tensor) -> Tensor | None:
    before, after = graph.shapes.get(node.input[0]), graph.shapes.get(node.output[0])
    target = graph.constant(node, 1) if node.op_type == "Reshape" else None
    if tensor.axis == 0 or not batch_stays(before, after):
        return None
    if node.op_type == "Reshape" and target is None:
        return None
    entries = tensor.spread(np.arange(len(tensor.labels)))[0]
    entries = np.broadcast_to(entries, before[1:]).reshape(after[1:])
    for axis, size in enumerate(after[1:], 1):
        lines = np.moveaxis(entries, axis - 1, -1).reshape(-1, size)
        if (lines == lines[0]).all():  # nothing but this axis tells the entry
            break
    else:
        return None
    labels, values = tensor.labels[lines[0]], tensor.values[lines[0]]

    def edit(stay):
        sizes = target.copy()
        sizes[axis] = stay[labels].sum()
        graph.write(node, 1, sizes)

    if target is not None and target[axis] > 0:  # else the size is copied, or worked out
        tensor.channels.edits.append(edit)
    return Tensor(tensor.channels, len(after), axis, labels, values)


MOVES = {
    **dict.fromkeys(["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"], pool),
    **dict.fromkeys(["ReduceMax", "ReduceMean"], reduce),
    **dict.fromkeys(["Flatten", "Reshape", "Squeeze", "Unsqueeze"], reshape),
    "Pad": pad,
    "Transpose": transpose,
}
