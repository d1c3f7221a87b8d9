"""What a graph makes of its constants alone: weights put together and masked when it is loaded."""

import os
from collections.abc import Iterator

import numpy as np

from packnet_tf.export.walk import within


def float_constants(path) -> Iterator[np.ndarray]:
    """Every float32 array that a graph holds, or calculates from what it holds.

    Args:
        path: a `.onnx` file, its weights in files beside it or not; of less than 2 GB in all.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = onnx.load(os.fspath(path))
    graph, nodes = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield numpy_helper.to_array(tensor)
    known = {"", *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if known.issuperset(node.input) and not within(node):
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            known.update(node.output)
    if not nodes:
        return
    for field in ("node", "input", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    made = [name for node in nodes for name in node.output if name]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    found = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    floats = [output.name for output in found.get_outputs() if output.type == "tensor(float)"]
    yield from found.run(floats, {})
