"""Takes out of an exported task the channels that its answers do not depend on.

Pruning leaves weights of a task exactly 0, and whole channels among them. The rest of the graph
either finds the same constant in such a channel everywhere, or has no weight for it. A channel goes
when each layer that sums over it

- finds 0 in it, or
- finds another constant in it, and has a bias that can take up what it adds and no padding, or
- has nothing but weights that are 0 for it,

and when nothing else reads it. With it go its kernel and bias, its constants on the way, its
depthwise kernels, and the weights for it in the next layers, which may leave more channels dead.
One channel of each layer always stays. Numbers are taken to be finite. `follow.py` lists the rules;
what a residual or a concatenation reads stays.
"""

import dataclasses
import math

import numpy as np

from packnet_tf.export.channels import Channels, Sum
from packnet_tf.export.follow import follow
from packnet_tf.export.graph import Graph


@dataclasses.dataclass(frozen=True)
class Removed:
    """What was taken out of a graph.

    Attributes:
        channels: output channels of convolutions and dense layers; a depthwise convolution has
            those of the layer before it, which count once.
        weights: how many numbers there are fewer among the constants.
        bytes: how much smaller the model is.
    """

    channels: int
    weights: int
    bytes: int


def remove_dead_channels(model) -> Removed:
    """Removes channels that are the same constant everywhere, or that no weight reads.

    The answers stay the same, but for rounding where constants moved into a bias.

    Args:
        model: an `onnx.ModelProto` of opset 13 to 18 that holds its weights, changed in place.
            Without dead channels it stays as it is; with them, noted shapes (`value_info`) go too.

    Returns:
        What was removed.

    Example:
        >>> remove_dead_channels(model)
        Removed(channels=96, weights=81504, bytes=326210)
    """
    import onnx

    weights, size = _weights(model.graph), model.ByteSize()
    old, constants = onnx.GraphProto(node=model.graph.node), len(model.graph.initializer)
    graph, channels = Graph(model), 0
    graph.settle_reshapes()
    while found := sum([_take_out(graph, each) for each in follow(graph)]):
        channels += found
        graph.drop_unread()
    if not channels:
        del model.graph.node[:], model.graph.initializer[constants:]
        model.graph.node.extend(old.node)
        return Removed(0, 0, 0)
    return Removed(channels, weights - _weights(model.graph), size - model.ByteSize())


def _take_out(graph: Graph, channels: Channels) -> int:
    """Takes the dead ones of some channels out of the graph; returns how many."""
    dead = _dead(channels)
    if not dead.any():
        return 0
    for layer in channels.sums:
        tensor = layer.tensor
        constant = dead[tensor.labels] & layer.read & (tensor.values != 0)
        if constant.any():
            _fold(graph, layer, constant)
    for edit in channels.edits:
        edit(~dead)
    return channels.layers * int(dead.sum())


def _dead(channels: Channels) -> np.ndarray:
    """Which channels can go: bool, shape (count,)."""
    if channels.fixed or not channels.sums:
        return np.zeros(channels.count, bool)
    dead = np.ones(channels.count, bool)
    for layer in channels.sums:
        values = layer.tensor.values
        needless = ~layer.read | (values == 0)
        if layer.bias is not None:
            needless |= ~np.isnan(values)
        dead[layer.tensor.labels[~needless]] = False
    if dead.all():
        dead[0] = False
    return dead


def _fold(graph: Graph, layer: Sum, entries: np.ndarray) -> None:
    """Adds to a layer's bias what its sum gets from entries that are constant."""
    kernel = np.moveaxis(graph.constant(layer.node, 1), layer.axis, 0)[entries]
    values = layer.tensor.values[entries].astype(np.float64)
    added = np.tensordot(values, kernel, 1).reshape(kernel.shape[1], -1).sum(1)
    node, place = layer.bias
    bias = graph.constant(node, place)
    bias = added if bias is None else bias + added
    graph.write(node, place, bias.astype(kernel.dtype))


def _weights(graph) -> int:
    """How many numbers that are not integers the constants of a graph hold."""
    import onnx

    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    return sum(math.prod(t.dims) for t in graph.initializer if t.data_type in kinds)
