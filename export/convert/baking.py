"""Values for the inputs of an ONNX graph that are weights."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.graph.walk import read_instead, reads

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

# What the converter does to bring a kernel into ONNX's layout.
LAYOUT = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class WeightLayout:
    """A weight as a graph wants it: the transposes and reshapes that were taken out of the graph.

    Attributes:
        source: name of the weight.
        steps: pairs (node, its further inputs by name), in order.
        opset: the ONNX operator set of the nodes.
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
    """Takes weights out of the inputs of a graph, and the nodes that only bring them into shape.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
        opset: the ONNX operator set of its nodes.
        weights: names of the inputs that are weights.

    Returns:
        By the names that the graph reads now, which constants it lacks.
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
    """Gives a graph the constants that it lacks.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
        layouts: what `extract_weights` returned for it.
        weights: values by the names of the weights.
    """
    from onnx import numpy_helper

    graph.initializer.extend(
        numpy_helper.from_array(layout(weights[layout.source]), name)
        for name, layout in layouts.items()
    )


def _follow(graph: "GraphProto", opset: int, layouts: dict[str, WeightLayout]) -> None:
    """Moves what transposes and reshapes weights from the graph into `layouts`."""
    from onnx import numpy_helper

    # Shapes and axes are small.
    small = {t.name: numpy_helper.to_array(t) for t in graph.initializer if len(t.dims) <= 1}
    counts = collections.Counter(reads(graph))
    for node in list(graph.node):  # in topological order, so that chains are followed
        if node.op_type not in LAYOUT or node.input[0] not in layouts:
            continue
        if not all(name in small for name in node.input[1:]):
            continue
        name, output = node.input[0], node.output[0]
        step = (type(node).FromString(node.SerializeToString()), _some(small, node.input[1:]))
        after = dataclasses.replace(layouts[name], steps=(*layouts[name].steps, step))
        graph.node.remove(node)
        if counts[name] == 1:  # nobody else wants it as it was: it keeps its name
            layouts[name], counts[name] = after, counts[output]
            read_instead(graph, output, name)
        else:
            layouts[output] = after
            counts[name] -= 1


def _some(values: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    return {name: values[name] for name in names}
