"""Canonical names and order of nodes, so that the same pack always gives the same files.

The converter numbers nodes with a counter per process and iterates over sets, so two conversions of
one model differ in names and in the order of nodes.
"""

import itertools
import string
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from packnet_tf.export.graph.walk import defined, graphs, node_reads, rename, within

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto

# Yields the names in a graph, each with an iterator of candidates for its new name.
Namer: TypeAlias = "Callable[[GraphProto], Iterator[tuple[str, Iterator[str]]]]"


def canonicalize(graph: "GraphProto", kept: set[str]) -> None:
    """Sorts nodes and constants in the order in which the outputs need them, and renames them.

    The output of a node is named after its operator and its position, a constant after the first
    node that reads it, and an unknown dimension after its axis (`batch` for the first). Nodes that
    no output needs are removed.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
        kept: names of weights; they stay, as do the names of inputs and outputs.
    """
    for part in graphs(graph):
        if part is not graph:
            _canonicalize_copies(part)
        _order(part)
    _rename_all(graph, kept, _descriptive_names)
    for part in graphs(graph):
        for entry in (*part.input, *part.output):
            for axis, size in enumerate(entry.type.tensor_type.shape.dim):
                if size.dim_param:
                    whole = part is graph and axis == 0
                    size.dim_param = "batch" if whole else f"{entry.name}_{axis}"
        if part is not graph:
            part.name = "body"


def shorten_names(graph: "GraphProto") -> None:
    """Gives everything in a graph except inputs and outputs the shortest possible name.

    Names take half of a file whose weights are external. Attributes of convolutions that have their
    default value or repeat the kernel's shape are removed too.
    """
    for part in graphs(graph):
        for node in part.node:
            node.ClearField("name")
            node.ClearField("doc_string")
            if node.op_type == "Conv":
                for attribute in [entry for entry in node.attribute if _is_redundant(entry)]:
                    node.attribute.remove(attribute)
    _rename_all(graph, set(), _short_names)


def _is_redundant(attribute: "AttributeProto") -> bool:
    """Whether a Conv computes the same without an attribute."""
    defaults = {"dilations": {1}, "strides": {1}, "pads": {0}}
    return (
        attribute.name == "kernel_shape"
        or (attribute.name == "group" and attribute.i == 1)
        or set(attribute.ints) == defaults.get(attribute.name)
    )


def _rename_all(graph: "GraphProto", kept: set[str], namer: Namer) -> None:
    kept = kept | {entry.name for entry in (*graph.input, *graph.output)} | {""}
    del graph.value_info[:]
    names: dict[str, str] = {}
    for name, candidates in namer(graph):
        if name not in kept and name not in names:
            names[name] = next(new for new in candidates if new not in kept)
    rename(graph, names)


def _canonicalize_copies(graph: "GraphProto") -> None:
    """Makes the second of two equal outputs an Identity of the first, never the reverse."""
    entries = {entry.name: (place, entry) for place, entry in enumerate(graph.output)}
    for node in graph.node:
        if node.op_type == "Identity" and {node.input[0], node.output[0]} <= entries.keys():
            (original, one), (copy, other) = entries[node.input[0]], entries[node.output[0]]
            if copy < original:
                one.name, other.name = other.name, one.name


def _order(graph: "GraphProto") -> None:
    """Sorts nodes by a depth-first search from the outputs, and constants by their first use."""
    makers = {output: place for place, node in enumerate(graph.node) for output in node.output}
    nodes, order, done = list(graph.node), [], set()
    stack = [(makers.get(entry.name), False) for entry in reversed(graph.output)]
    while stack:
        place, ready = stack.pop()
        if place is None or place in done:
            continue
        if ready:  # all its inputs are placed
            done.add(place)
            order.append(nodes[place])
            continue
        stack.append((place, True))
        stack += [(makers.get(name), False) for name in reversed(node_reads(nodes[place]))]
    del graph.node[:]
    graph.node.extend(order)
    for node in graph.node:
        if not node.domain:
            node.ClearField("domain")  # an empty domain and an unset one mean the same
    first: dict[str, int] = {}
    for name in [name for node in graph.node for name in node_reads(node)]:
        first.setdefault(name, len(first))
    constants = sorted(graph.initializer, key=lambda tensor: first.get(tensor.name, len(first)))
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _descriptive_names(
    graph: "GraphProto", prefix: str = ""
) -> Iterator[tuple[str, Iterator[str]]]:
    """Yields every name that a graph and its subgraphs define, with descriptive candidates."""
    constants = {tensor.name for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        node.name = f"{prefix}{node.op_type}_{number}"
        for place, name in enumerate(node_reads(node)):
            if name in constants:
                yield name, _numbered(f"{node.name}_in{place}")
        for place, name in enumerate(node.output):
            yield name, _numbered(f"{node.name}_out{place}" if place else node.name)
        for branch, inner in enumerate(within(node)):
            for place, entry in enumerate(inner.input):
                yield entry.name, _numbered(f"{node.name}_{branch}_given{place}")
            yield from _descriptive_names(inner, f"{node.name}_{branch}_")


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(1))


def _short_names(graph: "GraphProto") -> Iterator[tuple[str, Iterator[str]]]:
    """Yields every name in a graph, with short candidates."""
    digits = string.ascii_letters + string.digits
    supply = (
        "".join(letters)
        for length in itertools.count(1)
        for letters in itertools.product(digits, repeat=length)
        if not letters[0].isdigit()
    )
    yield from ((name, supply) for name in defined(graph))
