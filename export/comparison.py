"""Whether an ONNX file answers as the Keras model it was made from."""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np

from packnet_tf.export.batches import input_batches, labelled_batches
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.outputs import expected_and_found, top_classes
from packnet_tf.export.preprocessing import Pixels

RANDOM_BATCH = 4


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference found between two answers.

    Attributes:
        absolute: largest absolute difference of any output.
        relative: the same, divided by the largest magnitude of the Keras outputs.
        samples: how many inputs were compared.
        agreement: share of them for which both name the same class; None where none is named.
    """

    absolute: float
    relative: float
    samples: int
    agreement: float | None


class Comparison:
    """Compares files of one task with its Keras model.

    Args:
        model: the Keras model, called in inference mode.
        options: how the files were exported.
        pixels: what they do to pictures, where they take pictures.
    """

    def __init__(self, model: keras.Model, options: ExportOptions, pixels: Pixels | None):
        self.model, self.options, self.pixels = model, options, pixels

    def batches(self, samples=None) -> list[tuple[list[np.ndarray], int]]:
        """Random inputs, and samples, as batches; see `input_batches`.

        Args:
            samples: an array, a list of one per input, or a dict, as Keras takes it.
        """
        fixed = self.options.batch_size
        arrays = random_inputs(self.model, fixed, self.pixels)
        batches = [(arrays, len(arrays[0]))]
        if samples is not None:
            batches += input_batches(self.model, samples, fixed, RANDOM_BATCH)
        return batches

    def answers(self, onnx_session, inputs: list[np.ndarray]):
        """Keras's logits for a batch, and the file's answers, lists of an array per output."""
        if self.pixels is not None:
            pictures = self.pixels.images(inputs[0])
            given, inputs = [pictures], [self.pixels.pixels(pictures)]
        else:
            given = inputs
        names = [entry.name for entry in onnx_session.get_inputs()]
        found = onnx_session.run(None, dict(zip(names, given, strict=True)))
        logits = self.model(keras.tree.pack_sequence_as(self.model.input, inputs), training=False)
        logits = [keras.ops.convert_to_numpy(array) for array in keras.tree.flatten(logits)]
        return logits, found

    def difference(
        self, onnx_session, batches: Iterable[tuple[list[np.ndarray], int]]
    ) -> Difference:
        """The largest difference over some batches.

        Raises:
            ValueError: an answer is NaN or infinite.
        """
        absolute = relative = 0.0
        samples = same = 0
        named = True
        for inputs, count in batches:
            logits, found = self.answers(onnx_session, inputs)
            _check_finite(logits, found)
            for ours, theirs in expected_and_found(self.options.outputs, logits, found):
                ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
                apart = np.abs(ours - theirs).max(initial=0.0)
                scale = max(np.abs(ours).max(initial=0.0), np.finfo(np.float32).tiny)
                absolute = max(absolute, float(apart))
                relative = max(relative, float(apart / scale))
            samples += count
            ours = top_classes("logits", logits)
            theirs = top_classes(self.options.outputs, found)
            named = named and ours is not None and theirs is not None
            same += int(np.sum(ours[:count] == theirs[:count])) if named else 0
        return Difference(absolute, relative, samples, same / samples if named else None)

    def accuracy(self, onnx_session, labelled: Iterable) -> dict:
        """How often a file is right, and how often it names the class that Keras names.

        Args:
            onnx_session: a session of the file.
            labelled: pairs (inputs, labels), or one; see `labelled_batches`.

        Returns:
            A dict: `accuracy` and `agreement`, 0 to 1, and `images`.

        Raises:
            ValueError: the model does not classify, or the labels do not fit.
        """
        right = same = total = 0
        for inputs, labels in labelled_batches(self.model, labelled, self.options.batch_size):
            logits, found = self.answers(onnx_session, inputs)
            theirs = top_classes(self.options.outputs, found)
            if theirs is None:
                raise ValueError(
                    "Accuracy is of a model with one output (batch, classes); this one answers "
                    f"with {', '.join(str(array.shape) for array in found)}. Leave evaluate out."
                )
            count = len(labels)
            right += int(np.sum(theirs[:count] == labels))
            same += int(np.sum(theirs[:count] == top_classes("logits", logits)[:count]))
            total += count
        if not total:
            raise ValueError("evaluate has no examples. Give some, or leave it out.")
        return {"accuracy": right / total, "agreement": same / total, "images": total}


def random_inputs(
    model: keras.Model, batch_size: int | None, pixels: Pixels | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Random inputs of a model's shapes and dtypes; unknown lengths become 32.

    Floats are uniform in 0 to 1, or random pictures where the file takes pictures; integers are
    small enough to be indices of any embedding: 0 or 1.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for tensor in keras.tree.flatten(model.inputs):
        shape = (batch_size or RANDOM_BATCH, *(size or 32 for size in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if pixels is not None:
            arrays.append(pixels.pixels(generator.integers(0, 256, shape).astype(np.uint8)))
        elif "int" in dtype or dtype == "bool":
            arrays.append(generator.integers(0, 2, shape).astype(dtype))
        else:
            arrays.append(generator.random(shape).astype(dtype))
    return arrays


def _check_finite(logits, found) -> None:
    for who, arrays in (("Keras", logits), ("ONNX Runtime", found)):
        for values in arrays:
            if not np.isfinite(values).all():
                raise ValueError(
                    f"The model answers NaN or infinite numbers in {who}, so it cannot be compared."
                )
