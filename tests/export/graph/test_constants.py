"""Constants of a graph."""

import numpy as np
from onnx import helper, numpy_helper

from packnet_tf.export.graph.constants import merge_equal_constants


def test_one_of_several_equal_constants_is_kept():
    arrays = {"a": np.zeros(3, np.int8), "b": np.zeros(3, np.int8), "c": np.zeros(3, np.int32)}
    arrays |= {"d": np.zeros((1, 3), np.int8), "e": np.zeros(3, np.int8)}
    nodes = [helper.make_node("Sum", ["a", "b", "c", "d"], ["sum"])]
    outputs = [helper.make_tensor_value_info(name, 3, None) for name in ("sum", "e")]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "graph", [], outputs, constants)
    merge_equal_constants(graph)
    assert list(graph.node[0].input) == ["a", "a", "c", "d"]
    assert [tensor.name for tensor in graph.initializer] == ["a", "c", "d", "e"]
