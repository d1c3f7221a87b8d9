"""Traversal of an ONNX graph and its subgraphs (bodies of loops and branches)."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def within(node: "NodeProto") -> list["GraphProto"]:
    """Returns the subgraphs of a node."""
    return [
        graph
        for attribute in node.attribute
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    ]


def graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    """Yields a graph and all its subgraphs."""
    yield graph
    for node in graph.node:
        for inner in within(node):
            yield from graphs(inner)


def reads(graph: "GraphProto") -> Iterator[str]:
    """Yields every name that a graph and its subgraphs read, once per use."""
    for part in graphs(graph):
        yield from (output.name for output in part.output)
        for node in part.node:
            yield from node.input


def defined(graph: "GraphProto") -> Iterator[str]:
    """Yields the name of every input, constant and value of a graph and its subgraphs."""
    for part in graphs(graph):
        yield from (tensor.name for tensor in part.initializer)
        yield from (entry.name for entry in part.input)
        for node in part.node:
            yield from filter(None, node.output)


def free_names(graph: "GraphProto") -> Callable[[str], str]:
    """Returns a function from a name to one that a graph does not have yet.

    That is the name itself, or the name with underscores after it. The function gives the same for
    the same name, and different names for different ones.
    """
    taken = {*defined(graph), *reads(graph)}

    @functools.cache
    def free(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    return free


def node_reads(node: "NodeProto") -> list[str]:
    """Returns every name that a node and its subgraphs read."""
    return [*node.input, *(name for graph in within(node) for name in reads(graph))]


def read_instead(graph: "GraphProto", old: str, new: str) -> None:
    """Makes the nodes of a graph read one name instead of another."""
    for part in graphs(graph):
        for node in part.node:
            if old in node.input:
                node.input[:] = [new if name == old else name for name in node.input]


def rename(graph: "GraphProto", names: Mapping[str, str]) -> None:
    """Renames inputs, outputs, constants and values in a graph; names not listed stay."""
    for part in graphs(graph):
        for tensor in part.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for entry in (*part.input, *part.output, *part.value_info):
            entry.name = names.get(entry.name, entry.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
