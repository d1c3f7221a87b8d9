"""Follows the channels of an ONNX graph: who holds them, and what is known of their values.

A convolution or dense layer makes channels, per-channel nodes pass them on, and the next layers sum
over them. What has no rule here, and the outputs of the graph, fix the channels that reach them.

- Conv of one group, and MatMul and Gemm with a constant kernel that no other node reads, sum over
  channels and make new ones. Where the kernel of a new one is all 0, it is its bias everywhere.
- Depthwise Conv passes channels on, with one or several entries for each.
- Activations and arithmetic with per-channel constants pass them on; what they make of a constant
  is computed by ONNX's own reference. So does arithmetic within the same channels: x * sigmoid(x).
- Mul of two tensors, as in squeeze-and-excitation, makes their channels one; 0 times anything is 0.
  Add of two, a residual, fixes both.
- Nodes that move channels about have their rules in `channels.py`.
"""

import collections
import dataclasses

import numpy as np

from packnet_tf.export.channels import MOVES, UNKNOWN, Channels, Sum, Tensor
from packnet_tf.export.graph import Graph, attribute, pads

LAYERS = ("Conv", "Gemm", "MatMul")
ELEMENTWISE = (
    *("Abs", "Add", "BatchNormalization", "Celu", "Clip", "Div", "Elu", "Erf", "Exp"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg"),
    *("PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh"),
)


def follow(graph: Graph) -> list[Channels]:
    """Finds the channels of a graph.

    Args:
        graph: the graph; it is not changed.

    Returns:
        A `Channels` for each set of channels that layers make.
    """
    graph.infer_shapes()
    walk = _Walk(graph)
    for node in graph.proto.node:
        result = walk.step(node)
        if result is None:
            walk.fix(node.input)
        else:
            walk.tensors[node.output[0]] = result
    # Read more often than by these nodes: by who runs the graph, or within a loop or branch.
    walk.fix(name for name in walk.tensors if graph.reads[name] > len(walk.readers[name]))
    return list({id(t.channels): t.channels for t in walk.tensors.values()}.values())


class _Walk:
    """A walk from the inputs of a graph to its outputs."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.tensors: dict[str, Tensor] = {}
        self.readers = collections.defaultdict(list)
        for node in graph.proto.node:
            for name in node.input:
                self.readers[name].append(node)

    def step(self, node) -> Tensor | None:
        """A node's output, if it is known to hold channels."""
        if node.domain not in ("", "ai.onnx") or sum(map(bool, node.output)) != 1:
            return None
        if node.op_type in ELEMENTWISE:
            return self.elementwise(node)
        tensor = self.tensors.get(node.input[0]) if node.input else None
        if node.op_type in LAYERS:
            return self.layer(node, tensor)
        move = MOVES.get(node.op_type)
        return move(self.graph, node, tensor) if move and tensor else None

    def fix(self, names) -> None:
        for name in names:
            if name in self.tensors:
                self.tensors[name].channels.fixed = True

    def cut(self, channels: Channels, node, place: int, axis: int, labels: np.ndarray) -> None:
        """Notes that a constant, if there is one, loses its entries with the channels."""

        def edit(stay):
            value = self.graph.constant(node, place)
            if value is not None:
                self.graph.write(node, place, np.compress(stay[labels], value, axis))

        channels.edits.append(edit)

    def layer(self, node, tensor: Tensor | None) -> Tensor | None:
        kernel = self.graph.constant(node, 1)
        if kernel is None or self.graph.reads[node.input[1]] > 1:
            return None
        if attribute(node, "group", 1) != 1:
            return self.depthwise(node, kernel, tensor)
        if node.op_type == "Conv":
            made, rank, axis = 0, kernel.ndim, 1
        else:
            rank = len(self.graph.shapes.get(node.input[0], ()))
            scaled = any(attribute(node, name, 1) != 1 for name in ("alpha", "beta"))
            if kernel.ndim != 2 or not rank or scaled or attribute(node, "transA", 0):
                return None
            made, axis = 1 - attribute(node, "transB", 0), rank - 1
        bias = self.bias(node, kernel.shape[made])
        if bias is None:
            return None
        if tensor and (tensor.rank, tensor.axis) == (rank, axis):
            slot = None if pads(node) else self.bias_slot(node, len(bias))
            read = _any(kernel, 1 - made)
            tensor.channels.sums.append(Sum(node, 1 - made, tensor, read, slot))
            self.cut(tensor.channels, node, 1, 1 - made, tensor.labels)
        else:
            self.fix(node.input[:1])
        channels, labels = Channels(len(bias)), np.arange(len(bias))
        self.cut(channels, node, 1, made, labels)
        self.cut(channels, node, 2, 0, labels)
        return Tensor(channels, rank, axis, labels, np.where(_any(kernel, made), UNKNOWN, bias))

    def depthwise(self, node, kernel: np.ndarray, tensor: Tensor | None) -> Tensor | None:
        groups, count = attribute(node, "group", 1), len(kernel)
        bias = self.bias(node, count)
        if not tensor or bias is None or tensor.axis != 1 or kernel.shape[1] != 1:
            return None
        if not groups == len(tensor.labels) == tensor.channels.count:
            return None
        labels = np.repeat(tensor.labels, count // groups)
        inside = (tensor.zeros_only() if pads(node) else tensor).values
        inside = np.repeat(inside, count // groups) * kernel.reshape(count, -1).sum(1)
        values = bias + np.where(_any(kernel, 0), inside, np.float32(0))
        self.cut(tensor.channels, node, 1, 0, labels)
        self.cut(tensor.channels, node, 2, 0, labels)
        [group] = [entry for entry in node.attribute if entry.name == "group"]
        tensor.channels.edits.append(lambda stay: setattr(group, "i", int(stay.sum())))
        return dataclasses.replace(tensor, labels=labels, values=values)

    def bias(self, node, count: int) -> np.ndarray | None:
        """A layer's bias, zeros if it has none; None if it is not one constant per channel."""
        if not any(node.input[2:]):
            return np.zeros(count, np.float32)
        bias = self.graph.constant(node, 2)
        return bias if bias is not None and bias.shape == (count,) else None

    def bias_slot(self, node, count: int) -> tuple | None:
        """Where a layer's bias is or could be: behind MatMul, in the Add that follows."""
        if node.op_type != "MatMul":
            return node, 2
        name = node.output[0]
        if self.graph.reads[name] != 1 or [n.op_type for n in self.readers[name]] != ["Add"]:
            return None
        [add] = self.readers[name]
        place = 1 - list(add.input).index(name)
        bias = self.graph.constant(add, place)
        return (add, place) if bias is not None and bias.shape == (count,) else None

    def elementwise(self, node) -> Tensor | None:
        from onnx.reference import ReferenceEvaluator

        tensors = {name: self.tensors[name] for name in node.input if name in self.tensors}
        constants = {n: self.graph.constants[n] for n in node.input if n in self.graph.constants}
        if not tensors or not tensors.keys() | constants.keys() >= set(node.input) - {""}:
            return None
        first, *others = tensors.values()
        for other in others:
            alike = (first.rank, first.axis) == (other.rank, other.axis)
            if not alike or not np.array_equal(first.labels, other.labels):
                return None
            if other.channels is not first.channels and node.op_type != "Mul":
                return None
        # A tensor of one entry per channel; what is unknown is 0 in it for now.
        feeds = {n: t.spread(np.where(np.isnan(t.values), 0, t.values)) for n, t in tensors.items()}
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(node, opsets={"": self.graph.opset})
            [answer] = evaluator.run(None, constants | feeds)
        shape = first.spread(first.values).shape
        if answer.shape != shape:  # a constant differs between places, or has more axes
            return None
        known = np.isfinite(answer.ravel())
        for tensor in tensors.values():
            known &= ~np.isnan(tensor.values)
        if node.op_type == "Mul":
            for factor in [*constants.values(), *(t.spread(t.values) for t in tensors.values())]:
                known |= (np.broadcast_to(factor, shape) == 0).ravel()
        for other in others:
            self.merge(first.channels, other.channels)
        # Counted from the right, as arrays are broadcast.
        axis = -1 if node.op_type == "BatchNormalization" else first.axis - first.rank
        for place, name in enumerate(node.input):
            sizes = constants[name].shape if name in constants else ()
            if len(sizes) >= -axis and sizes[axis] == len(first.labels):
                self.cut(first.channels, node, place, axis, first.labels)
        return dataclasses.replace(first, values=np.where(known, answer.ravel(), UNKNOWN))

    def merge(self, first: Channels, other: Channels) -> None:
        """Makes two sets of channels one."""
        if first is other:
            return
        first.layers += other.layers
        first.fixed |= other.fixed
        first.sums += other.sums
        first.edits += other.edits
        for name, tensor in self.tensors.items():
            if tensor.channels is other:
                self.tensors[name] = dataclasses.replace(tensor, channels=first)


def _any(kernel: np.ndarray, axis: int) -> np.ndarray:
    """Which entries of an axis have a weight that is not 0."""
    return kernel.any(axis=tuple(other for other in range(kernel.ndim) if other != axis))
