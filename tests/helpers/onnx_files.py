"""Exported files made by hand, with answers that can be worked out on paper.

The network is the mean of every channel, times a matrix. They have the forms that exported tasks
have; that real ones work too is tested where they are exported.
"""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from packnet_tf.export import manifest as manifests

COLOURS = ("red", "green", "blue")


def write_model(
    path,
    output="logits",
    dtype="uint8",
    size=(None, None),
    channels=3,
    batch=None,
    matrix=None,
    k=2,
    beside=None,
    classes=COLOURS,
    **facts,
):
    """Writes a file that answers with the colour of a picture.

    Args:
        path: the file.
        output: "logits", "probabilities", or "top": the first `k` classes.
        dtype: of the input, "uint8" or "float32".
        size: (height, width) of the input, None for any.
        channels: of the input.
        batch: a fixed batch, or None.
        matrix: (channels, classes), by default a tenth of the identity.
        k: for "top".
        beside: the name of a file to put the matrix into.
        classes: the names, or None for none.
        **facts: further metadata.

    Returns:
        The path as text.
    """
    matrix = np.eye(channels) / 10 if matrix is None else np.asarray(matrix)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["logits"]),
    ]
    weights = [numpy_helper.from_array(matrix.astype(np.float32), "matrix")]
    outputs = [("logits", TensorProto.FLOAT, "batch", matrix.shape[1])]
    if output != "logits":
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1))
        outputs = [("probabilities", TensorProto.FLOAT, "batch", matrix.shape[1])]
    if output == "top":
        weights.append(numpy_helper.from_array(np.array([k], np.int64), "k"))
        names = ["top_probabilities", "top_classes"]
        nodes.append(helper.make_node("TopK", ["probabilities", "k"], names))
        outputs = [
            ("top_classes", TensorProto.INT64, "batch", k),
            ("top_probabilities", TensorProto.FLOAT, "batch", k),
        ]
    entry = helper.make_tensor_value_info(
        "image",
        {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[dtype],
        [batch or "batch", size[0] or "height", size[1] or "width", channels],
    )
    if classes is not None:
        facts["classes"] = json.dumps(list(classes))
    return save(path, nodes, [entry], outputs, weights, beside, facts)


def write_shape_model(path, **facts):
    """Writes a uint8 file whose two logits are the height and the width of the picture."""
    nodes = [
        helper.make_node("Shape", ["image"], ["sides"], start=1, end=3),
        helper.make_node("Unsqueeze", ["sides", "first"], ["row"]),
        helper.make_node("Cast", ["row"], ["logits"], to=TensorProto.FLOAT),
    ]
    weights = [numpy_helper.from_array(np.array([0], np.int64), "first")]
    shape = ["batch", "height", "width", 3]
    entry = helper.make_tensor_value_info("image", TensorProto.UINT8, shape)
    facts["classes"] = json.dumps(["tall", "wide"])
    return save(path, nodes, [entry], [("logits", TensorProto.FLOAT, 1, 2)], weights, None, facts)


def write_other_model(path, input_shape, output_shape, output="logits", inputs=1):
    """Writes a float file that is no classifier, or not of images: zeros of a shape."""
    names = ["image", "depth"][:inputs]
    nodes = [
        helper.make_node("ReduceMax", [names[-1]], ["highest"], keepdims=0),
        helper.make_node("Mul", ["highest", "zeros"], [output]),
    ]
    weights = [numpy_helper.from_array(np.zeros(output_shape, np.float32), "zeros")]
    entries = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *input_shape])
        for name in names
    ]
    return save(path, nodes, entries, [(output, TensorProto.FLOAT, *output_shape)], weights)


def write_failing_model(path):
    """Writes a float file that can be opened, and fails when it runs: 48 numbers as rows of 7."""
    nodes = [helper.make_node("Reshape", ["image", "rows"], ["logits"])]
    weights = [numpy_helper.from_array(np.array([-1, 7], np.int64), "rows")]
    entry = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4, 4, 3])
    outputs = [("logits", TensorProto.FLOAT, "batch", 7)]
    return save(path, nodes, [entry], outputs, weights, None, {"pixel_range": "0,1"})


def save(path, nodes, inputs, outputs, weights, beside=None, facts=None) -> str:
    """Saves a graph; its outputs are (name, type, *shape)."""
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name, kind, *shape in outputs]
    graph = helper.make_graph(nodes, "by hand", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: str(value) for key, value in (facts or {}).items()})
    options = {}
    if beside is not None:
        options = {"save_as_external_data": True, "location": beside, "size_threshold": 0}
    onnx.save(model, str(path), **options)
    return str(path)


def write_picture(path, colour, size=(4, 3), **options) -> str:
    """Saves a picture of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path, **options)
    return str(path)


def softmax(logits) -> list[float]:
    raised = np.exp(np.asarray(logits, np.float64))
    return list(raised / raised.sum())


def manifest(folder, *files, shared=()):
    """Writes the manifest of files that lie in a folder."""
    tasks = [
        {
            **blank(manifests.TASK),
            "task": name,
            "number": number,
            **manifests.describe_file(folder / name),
        }
        for number, name in enumerate(files, start=1)
    ]
    others = [
        {**blank(manifests.SHARED), "tasks": [1, 1], **manifests.describe_file(folder / name)}
        for name in shared
    ]
    kind = manifests.BUNDLE if shared else manifests.FILES
    manifests.write(folder, {**manifests.empty(kind), "tasks": tasks, "shared": others})


def blank(types):
    """An entry of a manifest in which every value is empty, or 0."""
    return {key: (kind[0] if isinstance(kind, tuple) else kind)() for key, kind in types.items()}
