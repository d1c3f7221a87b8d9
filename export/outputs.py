"""What an exported file answers with: logits, probabilities, or the classes that lead."""

import numpy as np

OUTPUTS = ("logits", "probabilities", "top_k")
NAMES = ("logits", "probabilities", "top_classes", "top_probabilities")


def check_outputs(proto, kind: str, top_k: int) -> None:
    """Refuses answers that a model cannot give.

    Raises:
        ValueError: the model does not classify, or has fewer classes.
    """
    if kind == "logits":
        return
    outputs = proto.graph.output
    shapes = [[size.dim_value for size in o.type.tensor_type.shape.dim] for o in outputs]
    found = ", ".join(_shape_text(output) for output in outputs)
    if any(shape[-1] == 1 for shape in shapes):
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


def append_outputs(proto, kind: str, top_k: int) -> None:
    """Changes the end of an ONNX model from logits to something else.

    Args:
        proto: an `onnx.ModelProto` whose outputs are logits, changed in place.
        kind: one of `OUTPUTS`. "probabilities" are a softmax over the last axis; "top_k" are two
            outputs, `top_classes` int64 (batch, k) and `top_probabilities` float32 (batch, k).
        top_k: how many.
    """
    from onnx import TensorProto, helper, numpy_helper

    if kind == "logits":
        return
    graph = proto.graph
    logits = list(graph.output)
    del graph.output[:]
    for output in logits:
        name = output.name.replace("logits", "probabilities")
        graph.node.append(helper.make_node("Softmax", [output.name], [name], axis=-1))
        if kind == "probabilities":
            output.name = name
            graph.output.append(output)
    if kind == "top_k":
        batch = logits[0].type.tensor_type.shape.dim[0]
        rows = batch.dim_value or batch.dim_param or None
        count = np.array([top_k], np.int64)
        graph.initializer.append(numpy_helper.from_array(count, "top_k_count"))
        given = ["top_probabilities", "top_classes"]
        graph.node.append(helper.make_node("TopK", [name, "top_k_count"], given, axis=-1))
        kinds = {"top_classes": TensorProto.INT64, "top_probabilities": TensorProto.FLOAT}
        graph.output.extend(
            helper.make_tensor_value_info(output, dtype, [rows, top_k])
            for output, dtype in kinds.items()
        )


def expected_and_found(kind: str, logits: list[np.ndarray], answers: list[np.ndarray]) -> list:
    """Pairs of arrays that are equal where a file answers as Keras.

    Args:
        kind: one of `OUTPUTS`.
        logits: Keras's answers, one array per output.
        answers: the file's.
    """
    if kind == "logits":
        return list(zip(logits, answers, strict=True))
    chances = [softmax(array) for array in logits]
    if kind == "probabilities":
        return list(zip(chances, answers, strict=True))
    [chance], (classes, top) = chances, answers
    leading = -np.sort(-chance, axis=-1)[:, : top.shape[-1]]
    # Two classes may be as probable as each other: compared is how probable the named ones are.
    return [(leading, top), (np.take_along_axis(chance, classes, -1), top)]


def top_classes(kind: str, answers: list[np.ndarray]) -> np.ndarray | None:
    """The leading class of every example, int64 (n,); None where the model does not classify."""
    if kind == "top_k":
        return answers[0][:, 0]
    if len(answers) != 1 or answers[0].ndim != 2 or answers[0].shape[-1] < 2:
        return None
    return np.argmax(answers[0], axis=-1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _shape_text(output) -> str:
    sizes = [str(size.dim_value or "batch") for size in output.type.tensor_type.shape.dim]
    return f"({', '.join(sizes)})"
