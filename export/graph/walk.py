"""Going through an ONNX graph, and through those of the loops and branches within it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def within(node: "NodeProto") -> list["GraphProto"]:
    """The graphs that a node holds."""
    return [
        graph
        for attribute in node.attribute
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    ]


def graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    """A graph, and all within it."""
    yield graph
    for node in graph.node:
        for inner in within(node):
            yield from graphs(inner)


def reads(graph: "GraphProto") -> Iterator[str]:
    """Every name that a graph reads, as often as it does, those within it included."""
    for part in graphs(graph):
        yield from (output.name for output in part.output)
        for node in part.node:
            yield from node.input


def node_reads(node: "NodeProto") -> list[str]:
    """Every name that a node reads, the graphs that it holds included."""
    return [*node.input, *(name for graph in within(node) for name in reads(graph))]


def read_instead(graph: "GraphProto", old: str, new: str) -> None:
    """Makes the nodes of a graph read one name instead of another."""
    for part in graphs(graph):
        for node in part.node:
            if old in node.input:
                node.input[:] = [new if name == old else name for name in node.input]


def rename(graph: "GraphProto", names: Mapping[str, str]) -> None:
    """Renames what a graph reads, makes and holds; names that are not listed stay."""
    for part in graphs(graph):
        for tensor in part.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for entry in (*part.input, *part.output, *part.value_info):
            entry.name = names.get(entry.name, entry.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
