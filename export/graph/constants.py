"""Constants of a graph: their contents, and those that it computes when it is loaded."""

import hashlib
import os
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.backend.types import AnyPath
from packnet_tf.export.graph.walk import read_instead, within

if TYPE_CHECKING:
    from onnx import GraphProto


def digest(array: np.ndarray) -> str:
    """Returns a hash of an array's contents, 16 hexadecimal digits."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.blake2b(
        np.ascontiguousarray(array).view(np.uint8).reshape(-1).data, digest_size=8, key=head[:64]
    ).hexdigest()


def merge_equal_constants(graph: "GraphProto") -> None:
    """Keeps one of several constants that are equal, such as the zero points of channels."""
    from onnx import TensorProto, numpy_helper

    kept: dict[str, str] = {}
    outputs = {entry.name for entry in graph.output}
    for tensor in list(graph.initializer):
        if tensor.data_location != TensorProto.EXTERNAL and tensor.name not in outputs:
            name = kept.setdefault(digest(numpy_helper.to_array(tensor)), tensor.name)
            if name != tensor.name:
                read_instead(graph, tensor.name, name)
                graph.initializer.remove(tensor)


def calculated_constants(path: AnyPath) -> list[np.ndarray]:
    """Returns every float32 array that a graph computes from its constants alone.

    Args:
        path: a `.onnx` file, with or without external data.
    """
    import onnx
    import onnxruntime

    model = onnx.load(os.fspath(path), load_external_data=False)
    graph, nodes = model.graph, []
    known = {"", *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if known.issuperset(node.input) and not within(node):
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            known.update(node.output)
    made = [name for node in nodes for name in node.output if name]
    if not made:
        return []
    for field in ("node", "input", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(nodes)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path",
        os.fspath(pathlib.Path(path).resolve().parent),
    )
    found = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    floats = [output.name for output in found.get_outputs() if output.type == "tensor(float)"]
    return found.run(floats, {}) if floats else []
