"""Outputs of exported files: logits, probabilities, or the most probable classes."""

import re
from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.export.graph.walk import free_names, rename

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

OUTPUTS = ("logits", "probabilities", "top_k")
NAMES = ("logits", "probabilities", "top_classes", "top_probabilities")
TOP_K = 5


def is_output_name(name: str) -> bool:
    """Returns whether outputs of exported files have this name; several are numbered from 0."""
    return re.fullmatch(rf"({'|'.join(NAMES)})(_\d+)?", name) is not None


def ends_in_probabilities(proto: "ModelProto") -> list[bool]:
    """Tells for each output of a model whether it ends in a softmax or a sigmoid."""
    made_by = {name: node for node in proto.graph.node for name in node.output}

    def ends(name: str) -> bool:
        while name in made_by and made_by[name].op_type in ("Identity", "Cast"):
            name = made_by[name].input[0]
        return name in made_by and made_by[name].op_type in ("Softmax", "Sigmoid")

    return [ends(output.name) for output in proto.graph.output]


def are_probabilities(answer: np.ndarray) -> bool:
    """Whether each row of an output holds probabilities: none below 0, with the sum 1.

    This holds however a model computes them (an average of two softmaxes, a clipped or reshaped
    one). Logits of random inputs never add up to 1.
    """
    several = answer.ndim > 1 and answer.shape[-1] > 1
    if not several or not np.issubdtype(answer.dtype, np.floating):
        return False
    sums = answer.sum(axis=-1, dtype=np.float64)
    return bool((answer >= 0).all() and np.allclose(sums, 1.0, rtol=0, atol=1e-3))


def name_outputs(proto: "ModelProto", features: bool, gives_probabilities: list[bool]) -> None:
    """Renames outputs that are features or probabilities and not logits.

    Args:
        proto: an `onnx.ModelProto` whose outputs are named as logits, changed in place.
        features: whether the model has no head, so that its outputs are the trunk's features.
        gives_probabilities: for each output, whether it holds probabilities.
    """
    features = features and "features" not in [entry.name for entry in proto.graph.input]
    otherwise = "features" if features else "logits"
    names = {}
    for output, given in zip(proto.graph.output, gives_probabilities, strict=True):
        if re.fullmatch(r"logits(_\d+)?", output.name):  # other names come from the head
            kind = "probabilities" if given else otherwise
            names[output.name] = output.name.replace("logits", kind)
    final = [names.get(output.name, output.name) for output in proto.graph.output]
    if len(set(final)) == len(final):  # a head may have an output of that name already
        rename(proto.graph, names)


def default_top_k(proto: "ModelProto") -> int:
    """Returns the number of classes in `outputs="top_k"` if none is given."""
    sizes = proto.graph.output[0].type.tensor_type.shape.dim
    return min(TOP_K, sizes[-1].dim_value or TOP_K) if sizes else TOP_K


def check_outputs(
    proto: "ModelProto", kind: str, top_k: int | None, gives_probabilities: list[bool]
) -> None:
    """Checks that a model can give the requested outputs.

    Args:
        proto: the model.
        kind, top_k: the options `outputs` and `top_k`.
        gives_probabilities: for each output, whether it holds probabilities.

    Raises:
        ValueError: the model does not classify, or has too few classes.
    """
    if kind == "logits" or (kind == "probabilities" and all(gives_probabilities)):
        return
    outputs = proto.graph.output
    shapes = [[size.dim_value for size in o.type.tensor_type.shape.dim] for o in outputs]
    found = ", ".join(_shape_text(output) for output in outputs)
    entries = zip(shapes, gives_probabilities, strict=True)
    if any(shape[-1] == 1 for shape, given in entries if kind == "top_k" or not given):
        raise ValueError(
            f'outputs="{kind}" is for two classes and more; this model has {found}, and the '
            'probability of one alone is always 1. Write outputs="logits".'
        )
    if kind == "top_k" and (len(outputs) != 1 or len(shapes[0]) != 2 or shapes[0][-1] < top_k):
        raise ValueError(
            f'outputs="top_k" with top_k={top_k} is for a model with one output (batch, classes) '
            f'of at least {top_k} classes; this one has {found}. Write outputs="logits", or a '
            "smaller top_k."
        )


def append_outputs(
    proto: "ModelProto", kind: str, top_k: int | None, gives_probabilities: list[bool]
) -> None:
    """Changes the outputs of an ONNX model to the requested kind.

    Args:
        proto: an `onnx.ModelProto`, changed in place.
        kind: one of `OUTPUTS`. "probabilities" adds a softmax over the last axis of the logits;
            "top_k" gives two outputs, `top_classes` int64 (batch, k) and `top_probabilities`
            float32 (batch, k).
        top_k: the number of classes, k.
        gives_probabilities: for each output, whether it holds probabilities.
    """
    from onnx import TensorProto, helper, numpy_helper

    if kind == "logits":
        return
    graph = proto.graph
    free = free_names(graph)
    for output, given in zip(graph.output, gives_probabilities, strict=True):
        if not given:
            logits = output.name
            wanted = logits.replace("logits", "probabilities")
            # The head's own names contain no "logits", or there is an output of that name.
            output.name = wanted if free(wanted) == wanted else free(f"{logits}_probabilities")
            graph.node.append(helper.make_node("Softmax", [logits], [output.name], axis=-1))
    if kind == "top_k":
        [output] = graph.output
        name, batch = output.name, output.type.tensor_type.shape.dim[0]
        rows = batch.dim_value or batch.dim_param or None
        del graph.output[:]
        count = np.array([top_k], np.int64)
        count_name = free("top_k_count")
        graph.initializer.append(numpy_helper.from_array(count, count_name))
        leading = ["top_probabilities", "top_classes"]
        graph.node.append(helper.make_node("TopK", [name, count_name], leading, axis=-1))
        kinds = {"top_classes": TensorProto.INT64, "top_probabilities": TensorProto.FLOAT}
        graph.output.extend(
            helper.make_tensor_value_info(output, dtype, [rows, top_k])
            for output, dtype in kinds.items()
        )


def expected_and_found(
    kind: str, ours: list[np.ndarray], answers: list[np.ndarray], gives_probabilities: list[bool]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns pairs of arrays that are equal if the outputs of a file are those of Keras.

    Args:
        kind: one of `OUTPUTS`.
        ours: the outputs of the Keras model, one array per output.
        answers: the outputs of the file.
        gives_probabilities: for each output of the Keras model, whether it holds probabilities.
    """
    if kind == "logits":
        return list(zip(ours, answers, strict=True))
    chances = [
        array if given else softmax(array)
        for array, given in zip(ours, gives_probabilities, strict=True)
    ]
    if kind == "probabilities":
        return list(zip(chances, answers, strict=True))
    [chance], (classes, top) = chances, answers
    leading = -np.sort(-chance, axis=-1)[:, : top.shape[-1]]
    # Classes with equal probabilities may swap places, so compare probabilities, not classes.
    return [(leading, top), (np.take_along_axis(chance, classes, -1), top)]


def top_classes(kind: str, answers: list[np.ndarray]) -> np.ndarray | None:
    """Returns the most probable class of each example, int64 (n,), or None for no classifier."""
    if kind == "top_k":
        return answers[0][:, 0]
    if len(answers) != 1 or answers[0].ndim != 2 or answers[0].shape[-1] < 2:
        return None
    return np.argmax(answers[0], axis=-1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Computes the softmax over the last axis in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _shape_text(output: "ValueInfoProto") -> str:
    sizes = [str(size.dim_value or "batch") for size in output.type.tensor_type.shape.dim]
    return f"({', '.join(sizes)})"
