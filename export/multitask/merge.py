"""Merges the graphs of several tasks into one, which computes what they have in common once."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.graph.constants import digest
from packnet_tf.export.graph.walk import defined, graphs, rename, within
from packnet_tf.export.runtime.task_session import TASKS_INPUT

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto


def merge(models: Mapping[str, "ModelProto"]) -> "ModelProto":
    """Merges the models of several tasks into one.

    What all tasks compute in the same way from the same inputs is computed once: the stem, and the
    preprocessing. The rest of each task is a branch of an `If`, which runs only if the task is to
    answer. Equal constants are stored once. Constants are outside of the branches, because
    onnxruntime 1.31 keeps those within them in memory twice.

    Args:
        models: models of the same inputs and operator sets, which hold their weights, by task.
            They are changed.

    Returns:
        A model with the outputs `NAME_TASK` and a further input `tasks`, bool (tasks,), in the
        order of `models`: which of them to compute. It may be left out for all. The outputs of a
        task that is not computed have no rows. It has no metadata.

    Raises:
        ValueError: two inputs or outputs would have the same name.
    """
    from onnx import TensorProto, helper, numpy_helper

    outputs = {
        task: [_with_any_batch(entry, f"{entry.name}_{task}") for entry in model.graph.output]
        for task, model in models.items()
    }
    inputs = [entry.name for model in models.values() for entry in model.graph.input]
    _check_names({*inputs}, {task: [entry.name for entry in outputs[task]] for task in models})
    mark = "/"  # in the name of every value within the graph, and in that of no input or output
    while any(mark in name for name in (*inputs, *(x.name for e in outputs.values() for x in e))):
        mark += "/"
    for place, model in enumerate(models.values()):
        _make_unique(model.graph, f"{place}{mark}")
    shared = _Shared([model.graph for model in models.values()])
    first = next(iter(models.values()))
    merged = type(first)()
    merged.CopyFrom(first)
    merged.ClearField("metadata_props")
    graph = merged.graph
    for field in ("node", "initializer", "output", "value_info"):
        graph.ClearField(field)
    graph.name, count = TASKS_INPUT, len(models)
    graph.input.append(helper.make_tensor_value_info(TASKS_INPUT, TensorProto.BOOL, [count]))
    graph.initializer.extend(shared.constants)
    graph.initializer.append(numpy_helper.from_array(np.ones(count, bool), TASKS_INPUT))
    graph.node.extend(shared.nodes)
    rename(graph, shared.names)
    for place, (task, model) in enumerate(models.items()):
        number, asked = (f"{mark}{place}{mark}{what}" for what in ("number", "asked"))
        graph.initializer.append(numpy_helper.from_array(np.array(place), number))
        graph.node.append(helper.make_node("Gather", [TASKS_INPUT, number], [asked]))
        branches = {
            "then_branch": shared.branch(model.graph),
            "else_branch": _empty_branch(model.graph.output),
        }
        names = [output.name for output in outputs[task]]
        graph.node.append(helper.make_node("If", [asked], names, **branches))
        graph.output.extend(outputs[task])
    return merged


class _Shared:
    """What all graphs compute.

    Args:
        every: the graphs; no name is in two of them.

    Attributes:
        nodes: the nodes that all have in common, equal ones once.
        constants: the constants of all graphs, equal ones once.
        names: for the name of every value, that of the first value that is equal.
    """

    def __init__(self, every: Sequence["GraphProto"]) -> None:
        keys = [_keys(graph) for graph in every]
        counts = Counter(key for found in keys for key in {*found.values()})
        names: dict[str, str] = {}  # by key: the name in the first graph that has it
        for found in keys:
            for name, key in found.items():
                names.setdefault(key, name)
        self._in_all = {
            name for found in keys for name, key in found.items() if counts[key] == len(every) > 1
        }
        self.names = {name: names[key] for found in keys for name, key in found.items()}
        self.nodes = [
            node
            for node in every[0].node
            if self._is_shared(node) and self.names[node.output[0]] == node.output[0]
        ]
        self.constants = [
            tensor
            for graph in every
            for tensor in graph.initializer
            if self.names[tensor.name] == tensor.name
        ]

    def _is_shared(self, node: "NodeProto") -> bool:
        return node.output[0] in self._in_all

    def branch(self, graph: "GraphProto") -> "GraphProto":
        """Returns what a graph computes alone, as a subgraph that reads the rest from outside."""
        from onnx import helper

        nodes = [node for node in graph.node if not self._is_shared(node)]
        made = {name for node in nodes for name in node.output}
        # A branch cannot hand on a value of the outer graph as it is.
        copies = {x.name: f"{x.name}/copy" for x in graph.output if x.name not in made}
        nodes += [helper.make_node("Identity", [name], [copies[name]]) for name in copies]
        outputs = [
            _with_any_batch(entry, copies.get(entry.name, entry.name)) for entry in graph.output
        ]
        branch = helper.make_graph(nodes, "branch", [], outputs)
        rename(branch, {name: new for name, new in self.names.items() if name not in made})
        return branch


def _keys(graph: "GraphProto") -> dict[str, str]:
    """Returns for the name of each value of a graph a hash of how it is computed."""
    from onnx import numpy_helper

    given = {"": "", **{entry.name: entry.name for entry in graph.input}}
    keys = dict(given)
    for tensor in graph.initializer:
        keys[tensor.name] = digest(numpy_helper.to_array(tensor))
    for node in graph.node:
        parts = [node.domain.encode(), node.op_type.encode()]
        parts += sorted(entry.SerializeToString(deterministic=True) for entry in node.attribute)
        parts += [keys[name].encode() for name in node.input]
        if within(node):  # the bodies of loops read names of their own graph
            parts.append(node.output[0].encode())
        for place, name in enumerate(node.output):
            if name:
                keys[name] = _hash([*parts, str(place).encode()])
    return {name: key for name, key in keys.items() if name not in given}


def _hash(parts: Iterable[bytes]) -> str:
    """Returns a hash of byte strings; none can stand for a part of another."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def _check_names(inputs: set[str], outputs: Mapping[str, Sequence[str]]) -> None:
    """Refuses names of a file that are the same."""
    if TASKS_INPUT in inputs:
        raise ValueError(
            f"An input of the trunk is called '{TASKS_INPUT}', and so is the input that says which "
            "tasks are to answer. Give the inputs other names: input_names=['image']."
        )
    makers: dict[str, str] = {}
    for task, names in outputs.items():
        for name in names:
            if name in inputs:
                raise ValueError(
                    f"An input and an output of task '{task}' are both called '{name}'. Give the "
                    "inputs other names: input_names=['image']."
                )
            if name in makers:
                raise ValueError(
                    f"The tasks '{makers[name]}' and '{task}' both have an output '{name}'. Leave "
                    f"one out: tasks=['{task}']."
                )
            makers[name] = task


def _make_unique(graph: "GraphProto", prefix: str) -> None:
    """Puts a prefix before every name in a graph, except those of its inputs."""
    for part in graphs(graph):
        for node in part.node:
            node.ClearField("name")
    names = {*defined(graph)} - {entry.name for entry in graph.input}
    rename(graph, {name: prefix + name for name in names})


def _with_any_batch(entry: "ValueInfoProto", name: str) -> "ValueInfoProto":
    """Returns a copy of an output under another name, with any number of rows."""
    copy = type(entry)()
    copy.CopyFrom(entry)
    copy.name = name
    if copy.type.tensor_type.shape.dim:
        copy.type.tensor_type.shape.dim[0].Clear()
    return copy


def _empty_branch(outputs: Iterable["ValueInfoProto"]) -> "GraphProto":
    """Returns a branch whose outputs have no rows."""
    from onnx import helper, numpy_helper

    nodes, entries = [], []
    for entry in outputs:
        tensor = entry.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        empty = np.zeros([0, *(size.dim_value for size in tensor.shape.dim[1:])], dtype)
        name = f"{entry.name}/empty"
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(empty)))
        entries.append(_with_any_batch(entry, name))
    return helper.make_graph(nodes, "empty", [], entries)
