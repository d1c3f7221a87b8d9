"""Whether an ONNX file answers as the Keras model it was made from."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from packnet_tf.backend.types import Tensors
from packnet_tf.export.graph.outputs import are_probabilities, expected_and_found, top_classes
from packnet_tf.export.graph.preprocessing import Pixels
from packnet_tf.export.options import ExportOptions
from packnet_tf.export.runtime.batches import input_batches, labelled_batches

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RANDOM_BATCH = 4
LENGTHS = (32, 64, 128, 256, 512, 1024, 16, 8)  # tried where a model takes any


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
        in_graph: of each output, whether its graph ends in probabilities.
        pixel_range: lowest and highest value of random images.
    """

    def __init__(
        self,
        model: keras.Model,
        options: ExportOptions,
        pixels: Pixels | None,
        in_graph: Sequence[bool],
        pixel_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.model, self.options, self.pixels = model, options, pixels
        self._in_graph, self.pixel_range = in_graph, pixel_range

    @functools.cached_property
    def gives_probabilities(self) -> list[bool]:
        """Of each output, whether the model answers with probabilities."""
        try:
            answers = self._keras(self._random(self._shapes()))
        except ValueError:  # it takes inputs of no length that is tried: its graph alone tells
            return list(self._in_graph)
        return [
            known or are_probabilities(answer)
            for known, answer in zip(self._in_graph, answers, strict=True)
        ]

    def batches(self, samples: Tensors = None) -> list[tuple[list[np.ndarray], int]]:
        """Random inputs, and samples, as batches; see `input_batches`.

        Args:
            samples: an array, a list of one per input, or a dict, as Keras takes it. Random ones
                have their sizes where the model takes any.

        Raises:
            ValueError: no size was found that the model takes.
        """
        fixed, given = self.options.batch_size, []
        if samples is not None:
            given = list(input_batches(self.model, samples, fixed, RANDOM_BATCH))
        shapes = [array.shape for array in given[0][0]] if given else self._shapes()
        arrays = self._random(shapes)
        return [(arrays, len(arrays[0])), *given]

    def _random(self, shapes: Iterable[tuple]) -> list[np.ndarray]:
        batch = self.options.batch_size or RANDOM_BATCH
        shapes = [(batch, *shape[1:]) for shape in shapes]
        return random_inputs(self.model, shapes, self.pixels, self.pixel_range)

    def _shapes(self) -> list[tuple]:
        """Those of the inputs; unknown lengths are the first that the model takes."""
        shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(self.model.inputs)]
        if all(None not in shape[1:] for shape in shapes):
            return shapes
        why = None
        for length in LENGTHS:
            tried = [tuple(size or length for size in shape) for shape in shapes]
            try:
                self._keras(self._random(tried))
            except Exception as error:  # Keras's and TensorFlow's own, of many kinds
                why = why or error
            else:
                return tried
        raise ValueError(
            f"The model's inputs have unknown lengths, {', '.join(map(str, shapes))}, and it "
            f"answers to none of {', '.join(map(str, LENGTHS))}. Give samples, inputs of a size "
            "that it takes."
        ) from why

    def _keras(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """What Keras answers to a batch, an array per output."""
        found = self.model(keras.tree.pack_sequence_as(self.model.input, inputs), training=False)
        return [keras.ops.convert_to_numpy(array) for array in keras.tree.flatten(found)]

    def answers(
        self, onnx_session: "InferenceSession", inputs: list[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Keras's logits for a batch, and the file's answers, lists of an array per output."""
        if self.pixels is not None:
            pictures = self.pixels.images(inputs[0])
            given, inputs = [pictures], [self.pixels.pixels(pictures)]
        else:
            given = inputs
        names = [entry.name for entry in onnx_session.get_inputs()]
        found = onnx_session.run(None, dict(zip(names, given, strict=True)))
        return self._keras(inputs), found

    def difference(
        self, onnx_session: "InferenceSession", batches: Iterable[tuple[list[np.ndarray], int]]
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
            kind = self.options.outputs
            for pair in expected_and_found(kind, logits, found, self.gives_probabilities):
                expected, answer = (array.astype(np.float64) for array in pair)
                apart = np.abs(expected - answer).max(initial=0.0)
                scale = max(np.abs(expected).max(initial=0.0), np.finfo(np.float32).tiny)
                absolute = max(absolute, float(apart))
                relative = max(relative, float(apart / scale))
            samples += count
            ours = top_classes("logits", logits)
            theirs = top_classes(self.options.outputs, found)
            if ours is None or theirs is None:
                named = False
            else:
                same += int(np.sum(ours[:count] == theirs[:count]))
        return Difference(absolute, relative, samples, same / samples if named else None)

    def accuracy(self, onnx_session: "InferenceSession", labelled: Iterable) -> dict:
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
            ours = top_classes("logits", logits)
            theirs = top_classes(self.options.outputs, found)
            if ours is None or theirs is None:
                raise ValueError(
                    "Accuracy is of a model with one output (batch, classes); this one answers "
                    f"with {', '.join(str(array.shape) for array in found)}. Leave evaluate out."
                )
            count = len(labels)
            right += int(np.sum(theirs[:count] == labels))
            same += int(np.sum(theirs[:count] == ours[:count]))
            total += count
        if not total:
            raise ValueError("evaluate has no examples. Give some, or leave it out.")
        return {"accuracy": right / total, "agreement": same / total, "images": total}


def random_inputs(
    model: keras.Model,
    shapes: Sequence[tuple[int, ...]],
    pixels: Pixels | None,
    pixel_range: tuple[float, float],
    seed: int = 0,
) -> list[np.ndarray]:
    """Random inputs of a model's dtypes.

    Images are uniform in the range of pixel values, or random pictures where the file takes
    pictures; other floats in 0 to 1. Integers are small enough to be indices of any embedding, 0 or
    1, but for pictures of uint8.

    Args:
        model: the model.
        shapes: of its inputs, batch included.
        pixels: what a file does to pictures that it takes.
        pixel_range: lowest and highest value of images.
        seed: of the numbers.
    """
    generator = np.random.default_rng(seed)
    arrays, tensors = [], keras.tree.flatten(model.inputs)
    for tensor, shape in zip(tensors, shapes, strict=True):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        picture = len(tensors) == 1 and len(shape) == 4
        if pixels is not None:
            arrays.append(pixels.pixels(generator.integers(0, 256, shape).astype(np.uint8)))
        elif "int" in dtype or dtype == "bool":
            most = 256 if picture and dtype == "uint8" else 2
            arrays.append(generator.integers(0, most, shape).astype(dtype))
        else:
            low, high = pixel_range if picture else (0.0, 1.0)
            arrays.append((low + (high - low) * generator.random(shape)).astype(dtype))
    return arrays


def _check_finite(logits: list[np.ndarray], found: list[np.ndarray]) -> None:
    for who, arrays in (("Keras", logits), ("ONNX Runtime", found)):
        for values in arrays:
            if not np.isfinite(values).all():
                raise ValueError(
                    f"The model answers NaN or infinite numbers in {who}, so it cannot be compared."
                )
