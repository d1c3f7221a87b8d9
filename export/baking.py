"""Values for the inputs of an ONNX graph that are weights."""

import collections
from collections.abc import Iterator, Mapping

import numpy as np

# What the converter does to bring a kernel into ONNX's layout.
LAYOUT = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")


def bake(graph, opset: int, weights: Mapping[str, np.ndarray]) -> None:
    """Turns inputs of a graph into constants of the same names, in the layout they are used in.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
        opset: the ONNX operator set of its nodes.
        weights: values by the names of the inputs.
    """
    from onnx import numpy_helper

    for entry in [entry for entry in graph.input if entry.name in weights]:
        graph.input.remove(entry)
    weights = _in_layout(graph, opset, dict(weights))
    used = set(_reads(graph))
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in weights.items()
        if name in used
    )
    for constant in [entry for entry in graph.initializer if entry.name not in used]:
        graph.initializer.remove(constant)


def _in_layout(graph, opset: int, weights: dict) -> dict[str, np.ndarray]:
    """Applies what transposes and reshapes weights, and takes those nodes out of the graph."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    # Shapes and axes are small.
    small = {t.name: numpy_helper.to_array(t) for t in graph.initializer if len(t.dims) <= 1}
    reads = collections.Counter(_reads(graph))
    for node in list(graph.node):  # in topological order, so that chains are followed
        if node.op_type not in LAYOUT or node.input[0] not in weights:
            continue
        if not all(name in small for name in node.input[1:]):
            continue
        name, output = node.input[0], node.output[0]
        feeds = {name: weights[name], **{other: small[other] for other in node.input[1:]}}
        [value] = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
        graph.node.remove(node)
        if reads[name] == 1:  # nobody else wants it as it was: it keeps its name
            weights[name], reads[name] = value, reads[output]
            _rename(graph, output, name)
        else:
            weights[output] = value
            reads[name] -= 1
    return weights


def _graphs(graph) -> Iterator:
    """A graph, and those of the loops and branches within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _reads(graph) -> Iterator[str]:
    """Every name that is read, as often as it is."""
    for part in _graphs(graph):
        yield from (output.name for output in part.output)
        for node in part.node:
            yield from node.input


def _rename(graph, old: str, new: str) -> None:
    for part in _graphs(graph):
        for node in part.node:
            for place, name in enumerate(node.input):
                if name == old:
                    node.input[place] = new
