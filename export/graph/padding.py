"""A workaround for onnxruntime's fusion of zero padding and maximum pooling."""

from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.graph.walk import free_names

if TYPE_CHECKING:
    from onnx import GraphProto


def keep_zero_padding(graph: "GraphProto") -> None:
    """Inserts a node that changes nothing between Pad and MaxPool if the input may be negative.

    From its basic optimization level on, onnxruntime 1.31 fuses the two and then pads with the
    lowest number instead of 0. ResNetV2 has this pair after a convolution.

    Args:
        graph: an `onnx.GraphProto`, changed in place.
    """
    from onnx import helper, numpy_helper

    free = free_names(graph)
    makers = {output: node for node in graph.node for output in node.output}
    nodes, lowest = [], None
    for node in graph.node:
        pad = makers.get(node.input[0]) if node.op_type == "MaxPool" else None
        if pad is not None and pad.op_type == "Pad":
            source = makers.get(pad.input[0])
            if source is None or source.op_type != "Relu":
                if lowest is None:
                    lowest = free("lowest_float")
                    value = np.array(np.finfo(np.float32).min, np.float32)
                    graph.initializer.append(numpy_helper.from_array(value, lowest))
                kept = free(f"{pad.output[0]}_kept")
                nodes.append(helper.make_node("Clip", [pad.output[0], lowest], [kept], name=kept))
                node.input[0] = kept
        nodes.append(node)
    if lowest is not None:
        del graph.node[:]
        graph.node.extend(nodes)
