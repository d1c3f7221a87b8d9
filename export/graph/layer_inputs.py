"""The inputs of a graph's layers, for typical inputs of the graph."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from packnet_tf.export.graph.walk import node_reads

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

INPUTS = 128  # typical inputs at most
PIXELS = 2**21  # of these inputs together, or 16 inputs: what layers make of them is kept in memory
BATCH = 16  # inputs that run at once

Feeds = Sequence[Mapping[str, np.ndarray]]


def typical(model: "ModelProto", feeds: Feeds) -> list[dict[str, np.ndarray]]:
    """Returns some of the inputs, evenly chosen, in batches that the graph takes.

    Args:
        model: the graph.
        feeds: inputs by name, all with the batch first.
    """
    first = next(iter(feeds[0].values()))
    count = max(16, min(INPUTS, PIXELS // max(1, math.prod(first.shape[1:-1]))))
    fixed = max(entry.type.tensor_type.shape.dim[0].dim_value for entry in model.graph.input)
    rows = [(place, row) for place, feed in enumerate(feeds) for row in range(_length(feed))]
    if fixed:  # whole batches
        rows, count = [(place, 0) for place in range(len(feeds))], math.ceil(count / fixed)
    chosen = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False).astype(int)
    by_feed: dict[int, list[int]] = {}
    for place, row in (rows[number] for number in chosen):
        by_feed.setdefault(place, []).append(row)
    return [
        {name: array if fixed else array[part] for name, array in feeds[place].items()}
        for place, some in by_feed.items()
        for part in (some[start : start + BATCH] for start in range(0, len(some), BATCH))
    ]


def _length(feed: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(feed.values())))


class LayerInputs:
    """What layers of a graph are given, one layer after the other.

    Each value is calculated from values that are known already, and kept until no later layer
    depends on it. So the constants of a layer may change once its inputs are known.

    Args:
        model: the graph.
        feeds: inputs of the graph.
        names: for each layer, in the order of computation, the name of the value that it is given.
    """

    def __init__(self, model: "ModelProto", feeds: Feeds, names: Sequence[str]) -> None:
        self._model, self._names, self._at = model, names, 0
        self._known = [dict(feed) for feed in feeds]
        self._last: dict[str, int] = {}  # by value: the last layer for which it is needed
        known = {entry.name for entry in model.graph.input}
        for at, name in enumerate(names):
            _, read = _between(model, known, name)
            self._last |= dict.fromkeys([*read, name], at)
            known.add(name)

    def next(self) -> list[np.ndarray]:
        """Returns what the next layer is given, an array for each of the feeds."""
        name = self._names[self._at]
        if name not in self._known[0]:
            nodes, read = _between(self._model, set(self._known[0]), name)
            run = _session(self._model, nodes, read, name)
            for values in self._known:
                [values[name]] = run(None, {given: values[given] for given in read})
        found = [values[name] for values in self._known]
        for values in self._known:
            for other in [x for x in values if self._last.get(x, -1) <= self._at]:
                del values[other]
        self._at += 1
        return found


def _between(
    model: "ModelProto", known: set[str], name: str
) -> tuple[list["NodeProto"], list[str]]:
    """Returns the nodes that calculate a value, and which of the known values they read."""
    needed, nodes, read = {name} - known, [], {name} & known
    for node in reversed(model.graph.node):  # in the order of computation
        if needed & set(node.output):
            nodes.append(node)
            reads = set(node_reads(node))
            needed |= reads - known
            read |= reads & known
    return nodes[::-1], sorted(read)


def _session(
    model: "ModelProto", nodes: Sequence["NodeProto"], read: Sequence[str], name: str
) -> Any:
    """Returns a function that calculates a value from others, the `run` of a session."""
    import onnxruntime
    from onnx import ModelProto, TensorProto, helper

    part = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name, kinds = name, {entry.name: entry for entry in model.graph.input}
    part.graph.node.extend(nodes)
    used = {given for node in nodes for given in node_reads(node)}
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    # Layers are given floats; only inputs of the graph may be of another kind.
    part.graph.input.extend(
        kinds.get(given) or helper.make_tensor_value_info(given, TensorProto.FLOAT, None)
        for given in read
    )
    part.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # threads would wait for short work
    return onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run


def windows(
    values: Sequence[np.ndarray], shape: Sequence[int], attributes: Mapping[str, Any], count: int
) -> np.ndarray:
    """Returns what the weights of a layer are multiplied with.

    Args:
        values: what the layer is given, float32 (n, channels, ...) each; of a dense layer
            (..., inputs).
        shape: shape of its kernel, outputs first.
        attributes: those of its node.
        count: how many positions, about.

    Returns:
        Float32 (groups, inputs of a weight, positions).
    """
    found = [_windows(images, shape, attributes, count // len(values)) for images in values]
    return np.concatenate(found, axis=2)


def _windows(
    images: np.ndarray, shape: Sequence[int], attributes: Mapping[str, Any], count: int
) -> np.ndarray:
    """Returns the windows of a batch (groups, inputs of a weight, positions).

    Args:
        images: float32 (n, channels, ...); of a dense layer (..., inputs).
        shape: shape of the kernel, (outputs, channels, ...).
        attributes: those of the node.
        count: how many positions, about.
    """
    if len(shape) == 2:  # of a dense layer
        rows = images.reshape(-1, images.shape[-1])
        each = min(len(rows), max(1, count))
        return rows[np.linspace(0, len(rows), each, endpoint=False).astype(int)].T[None]
    sizes, axes = shape[2:], tuple(range(2, len(shape)))
    ones = [1] * len(sizes)
    strides, dilations = (attributes.get(name, ones) for name in ("strides", "dilations"))
    extents = [(size - 1) * step + 1 for size, step in zip(sizes, dilations, strict=True)]
    pads = list(_pads(images.shape[2:], extents, strides, attributes))
    padded = np.pad(images, [(0, 0), (0, 0), *pads])
    views = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=axes)
    every = [slice(None, None, step) for step in (*strides, *dilations)]
    views = views[:, :, *every]  # (n, channels, positions ..., kernel ...)
    places = views.shape[2 : len(shape)]
    total = int(np.prod(places))
    each = max(1, min(total, count // len(images)))
    chosen = np.unravel_index(np.linspace(0, total, each, endpoint=False).astype(int), places)
    index: tuple[Any, ...] = (slice(None), slice(None), *chosen)
    found = views[index]  # (n, channels, positions, kernel ...)
    groups = attributes.get("group", 1)
    found = found.reshape(len(images), groups, -1, *found.shape[2:])
    order = (1, 2, *range(4, found.ndim), 0, 3)
    return found.transpose(order).reshape(groups, int(np.prod(shape[1:])), -1)


def _pads(
    sizes: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    attributes: Mapping[str, Any],
) -> Iterator[tuple[int, int]]:
    """Yields the padding before and after along each axis."""
    kind = attributes.get("auto_pad", b"NOTSET").decode()
    given = attributes.get("pads", [0] * 2 * len(sizes))
    for axis, (size, extent, stride) in enumerate(zip(sizes, extents, strides, strict=True)):
        if kind.startswith("SAME"):
            total = max(0, (-(-size // stride) - 1) * stride + extent - size)
            less = total // 2
            yield (less, total - less) if kind == "SAME_UPPER" else (total - less, less)
        else:
            yield (0, 0) if kind == "VALID" else (given[axis], given[axis + len(sizes)])
