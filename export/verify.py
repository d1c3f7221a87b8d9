"""Whether an ONNX graph answers as the Keras model it was made from."""

import dataclasses

import keras
import numpy as np

RANDOM_BATCH = 4


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference found between two answers.

    Attributes:
        absolute: largest absolute difference of any output.
        relative: the same, divided by the largest magnitude of the Keras outputs.
        samples: how many inputs were compared.
    """

    absolute: float
    relative: float
    samples: int


def random_inputs(model: keras.Model, batch_size: int | None, seed: int = 0) -> list[np.ndarray]:
    """Random inputs of a model's shapes and dtypes; unknown lengths become 32.

    Floats are uniform in 0 to 1, integers small enough to be indices of any embedding: 0 or 1.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for tensor in keras.tree.flatten(model.inputs):
        shape = (batch_size or RANDOM_BATCH, *(size or 32 for size in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if "int" in dtype or dtype == "bool":
            arrays.append(generator.integers(0, 2, shape).astype(dtype))
        else:
            arrays.append(generator.random(shape).astype(dtype))
    return arrays


def compare(model: keras.Model, onnx_session, inputs: list[np.ndarray], softmax: bool):
    """Compares Keras and onnxruntime on one batch of inputs.

    Args:
        model: the Keras model, called in inference mode.
        onnx_session: a session of its ONNX graph.
        inputs: one array per input, a batch each.
        softmax: whether the graph ends in a softmax that the model lacks.

    Returns:
        A `Difference`.

    Raises:
        ValueError: an answer is NaN or infinite.
    """
    feeds = {
        entry.name: array for entry, array in zip(onnx_session.get_inputs(), inputs, strict=True)
    }
    answers = onnx_session.run(None, feeds)
    expected = model(keras.tree.pack_sequence_as(model.input, inputs), training=False)
    absolute = relative = 0.0
    for ours, theirs in zip(keras.tree.flatten(expected), answers, strict=True):
        if softmax:
            ours = keras.ops.softmax(ours)
        ours = keras.ops.convert_to_numpy(ours).astype(np.float64)
        theirs = theirs.astype(np.float64)
        for who, values in (("Keras", ours), ("ONNX Runtime", theirs)):
            if not np.isfinite(values).all():
                raise ValueError(
                    f"The model answers NaN or infinite numbers in {who}, so it cannot be compared."
                )
        apart = np.abs(ours - theirs).max(initial=0.0)
        absolute = max(absolute, float(apart))
        scale = max(float(np.abs(ours).max(initial=0.0)), np.finfo(np.float32).tiny)
        relative = max(relative, float(apart) / scale)
    return Difference(absolute, relative, len(inputs[0]))


def worst(differences: list[Difference]) -> Difference:
    """The largest of several differences, and the number of inputs of all."""
    return Difference(
        max(difference.absolute for difference in differences),
        max(difference.relative for difference in differences),
        sum(difference.samples for difference in differences),
    )
