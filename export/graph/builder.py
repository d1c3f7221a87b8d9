"""Adds nodes and constants to an ONNX graph in as few bytes as possible."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from packnet_tf.export.graph.constants import digest
from packnet_tf.export.graph.walk import free_names, read_instead

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto


class GraphBuilder:
    """Adds nodes in front of the existing nodes of a graph.

    Args:
        graph: an `onnx.GraphProto`; `close` changes it in place.
    """

    def __init__(self, graph: "GraphProto") -> None:
        self._graph = graph
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, str] = {}
        self._count = itertools.count()
        self._free = free_names(graph)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of a standard operator; returns the name of its output."""
        from onnx import helper

        output = self._name()
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def split(self, source: str, sizes: Sequence[int]) -> list[str]:
        """Adds a node that splits a tensor along its first axis; returns the parts' names."""
        from onnx import helper

        if len(sizes) == 1:
            return [source]
        outputs = [self._name() for _ in sizes]
        lengths = self.constant(np.array(sizes, np.int64))
        self._nodes.append(helper.make_node("Split", [source, lengths], outputs))
        return outputs

    def constant(self, value: np.ndarray) -> str:
        """Adds a constant unless an equal one was added before; returns its name."""
        from onnx import numpy_helper

        key = digest(value)
        if key not in self._constants:
            self._constants[key] = self._name()
            self._graph.initializer.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def external(self, file: str, offset: int, value: np.ndarray) -> str:
        """Adds a constant stored in a file at an offset in bytes; returns its name."""
        name = self._name()
        self._graph.initializer.append(external(name, file, offset, value.dtype, value.shape))
        return name

    def alias(self, name: str, source: str) -> None:
        """Makes the graph read `source` wherever it reads `name`."""
        read_instead(self._graph, name, source)

    def close(self) -> None:
        """Inserts the nodes into the graph."""
        others = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self._nodes, *others])
        self._nodes = []

    def _name(self) -> str:
        return self._free(f"packed_{next(self._count)}")


def external(
    name: str, file: str, offset: int, dtype: np.dtype, shape: Sequence[int]
) -> "TensorProto":
    """Returns an `onnx.TensorProto` whose values are stored in a file, at an offset in bytes."""
    from onnx import TensorProto, helper

    tensor = TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
        dims=shape,
        data_location=TensorProto.EXTERNAL,
    )
    length = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
