"""Weights as constants of an ONNX graph, in place of graph inputs."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.graph.walk import read_instead, reads

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

# The operators with which the converter brings a kernel into ONNX's layout.
LAYOUT = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class WeightLayout:
    """The transposes and reshapes that bring a weight into a graph's layout.

    Attributes:
        source: name of the weight.
        opset: the ONNX operator set of the nodes.
        steps: pairs of a node and its other inputs by name, in the order in which they apply.
    """

    source: str
    opset: int
    steps: tuple[tuple["NodeProto", dict[str, np.ndarray]], ...] = ()

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Brings an array of the weight's shape, of any dtype, into the graph's layout."""
        from onnx.reference import ReferenceEvaluator

        for node, others in self.steps:
            feeds = {node.input[0]: array, **others}
            evaluator = ReferenceEvaluator(node, opsets={"": self.opset})
            [array] = evaluator.run(None, feeds)  # type: ignore[assignment]  # a list, not a dict
        return np.ascontiguousarray(array)


def extract_weights(
    graph: "GraphProto", opset: int, weights: Iterable[str]
) -> dict[str, WeightLayout]:
    """Removes weights from the inputs of a graph, and the nodes that only change their layout.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
        opset: the ONNX operator set of its nodes.
        weights: names of the inputs that are weights.

    Returns:
        The layouts of the constants that the graph now lacks, by the names that it reads.
    """
    layouts = {name: WeightLayout(name, opset) for name in weights}
    for entry in [entry for entry in graph.input if entry.name in layouts]:
        graph.input.remove(entry)
    _follow(graph, opset, layouts)
    used = set(reads(graph))
    for constant in [entry for entry in graph.initializer if entry.name not in used]:
        graph.initializer.remove(constant)
    return {name: layouts[name] for name in layouts if name in used}


def bake(
    graph: "GraphProto", layouts: Mapping[str, WeightLayout], weights: Mapping[str, np.ndarray]
) -> None:
    """Adds the missing constants to a graph.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
        layouts: the layouts that `extract_weights` returned.
        weights: values by name of the weight.
    """
    from onnx import numpy_helper

    graph.initializer.extend(
        numpy_helper.from_array(layout(weights[layout.source]), name)
        for name, layout in layouts.items()
    )


def _follow(graph: "GraphProto", opset: int, layouts: dict[str, WeightLayout]) -> None:
    """Moves the nodes that transpose and reshape weights from the graph into `layouts`."""
    from onnx import numpy_helper

    # The nodes' other inputs are shapes and axes, which have one dimension at most.
    small = {t.name: numpy_helper.to_array(t) for t in graph.initializer if len(t.dims) <= 1}
    counts = collections.Counter(reads(graph))
    for node in list(graph.node):  # in topological order, so chains of nodes are moved as well
        if node.op_type not in LAYOUT or node.input[0] not in layouts:
            continue
        if not all(name in small for name in node.input[1:]):
            continue
        name, output = node.input[0], node.output[0]
        step = (type(node).FromString(node.SerializeToString()), _select(small, node.input[1:]))
        after = dataclasses.replace(layouts[name], steps=(*layouts[name].steps, step))
        graph.node.remove(node)
        if counts[name] == 1:  # no other node reads the old layout: the name can stay
            layouts[name], counts[name] = after, counts[output]
            read_instead(graph, output, name)
        else:
            layouts[output] = after
            counts[name] -= 1


def _select(values: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    return {name: values[name] for name in names}
