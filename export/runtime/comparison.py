"""Compares the outputs of an ONNX file with those of its Keras model."""

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
from packnet_tf.export.runtime.session import LENGTHS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

RANDOM_BATCH = 4
# Ranges of random integers; images of bytes have all values, unsigned integers none below 0. Any
# embedding takes the first; the others are for models that compute with integers, which operators
# of ONNX may round, or count from the end, in another way. Floats that are no image go with them:
# from 0 to 1 first, then from -1, and all 0 as padding has it.
SAFE, *WIDER = (0, 2), (-1, 2), (-9, 100)
OTHER_LENGTHS = (24, 16, 48)  # further sizes for unknown dimensions, of which one is compared


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest difference between the outputs of a file and of Keras.

    Attributes:
        absolute: largest absolute difference of any output.
        relative: the same, divided by the largest magnitude of the Keras outputs.
        samples: the number of inputs that were compared.
        agreement: fraction of them with the same most probable class, 0 to 1; None if the model
            does not classify.
    """

    absolute: float
    relative: float
    samples: int
    agreement: float | None


class Comparison:
    """Compares files of one task with its Keras model.

    Args:
        model: the Keras model, called in inference mode.
        options: the options of the export.
        pixels: the preprocessing in the files; None if there is none.
        in_graph: for each output, whether its graph ends in a softmax or a sigmoid.
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
        """For each output, whether it holds probabilities."""
        try:
            answers = self._keras(self._random(self._shapes()))
        except ValueError:  # no size that was tried fits: only the graph can tell
            return list(self._in_graph)
        return [
            known or are_probabilities(answer)
            for known, answer in zip(self._in_graph, answers, strict=True)
        ]

    def batches(
        self, samples: Tensors = None, wide: bool | None = None
    ) -> list[tuple[list[np.ndarray], int]]:
        """Returns random inputs and samples as batches; see `input_batches`.

        Args:
            samples: an array, a list of one per input, or a dict by input name. Random inputs take
                the sizes of unknown dimensions from them.
            wide: whether to add random inputs with numbers below 0, and integers above 1, if the
                model answers to them; by default if the precision is float32, whose files know no
                limits of values.

        Raises:
            ValueError: the model takes none of the sizes that were tried.
        """
        fixed, given = self.options.batch_size, []
        if samples is not None:
            given = list(input_batches(self.model, samples, fixed, RANDOM_BATCH))
        shapes = [array.shape for array in given[0][0]] if given else self._shapes()
        first = self._random(shapes)
        wide = self.options.precision == "float32" if wide is None else wide
        random = [first, *(self._wider(first) if wide else [])]
        if not given:
            random += self._of_another_size()
        return [*((arrays, len(arrays[0])) for arrays in random), *given]

    def _random(
        self, shapes: Iterable[tuple], integers: tuple[int, int] = SAFE
    ) -> list[np.ndarray]:
        batch = self.options.batch_size or RANDOM_BATCH
        shapes = [(batch, *shape[1:]) for shape in shapes]
        return random_inputs(self.model, shapes, self.pixels, self.pixel_range, integers)

    def _wider(self, first: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Returns random inputs with wider ranges, those that the Keras model answers to.

        On CPUs, TensorFlow raises an error for an index that a table lacks. On GPUs it answers
        with zeros, so there nothing tells which integers a model is for.
        """
        import tensorflow as tf

        integers = any(array.dtype.kind in "iu" for array in first)
        if self.pixels is not None or (integers and tf.config.list_logical_devices("GPU")):
            return []
        found = [first]
        for values in WIDER:
            arrays = self._random([array.shape for array in first], values)
            # Those of images and unsigned integers may be the same again.
            seen = any(all(map(np.array_equal, arrays, other)) for other in found)
            if not seen and self._takes(arrays):
                found.append(arrays)
        return found[1:]

    def _of_another_size(self) -> list[list[np.ndarray]]:
        """Returns random inputs of another size, if the model takes any; else nothing."""
        shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(self.model.inputs)]
        if any(None in shape[1:] for shape in shapes):
            for length in OTHER_LENGTHS:
                arrays = self._random([tuple(size or length for size in shape) for shape in shapes])
                if self._takes(arrays):
                    return [arrays]
        return []

    def _takes(self, inputs: list[np.ndarray]) -> bool:
        """Whether the Keras model answers to inputs with finite numbers."""
        try:
            return all(np.isfinite(answer).all() for answer in self._keras(inputs))
        except Exception:  # Keras and TensorFlow raise many classes
            return False

    def _shapes(self) -> list[tuple]:
        """Returns the input shapes, with the first size that works for unknown dimensions."""
        shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(self.model.inputs)]
        if all(None not in shape[1:] for shape in shapes):
            return shapes
        why = None
        for length in LENGTHS:
            tried = [tuple(size or length for size in shape) for shape in shapes]
            try:
                self._keras(self._random(tried))
            except Exception as error:  # Keras and TensorFlow raise many classes
                why = why or error
            else:
                return tried
        raise ValueError(
            f"The model's inputs have unknown lengths, {', '.join(map(str, shapes))}, and it "
            f"answers to none of {', '.join(map(str, LENGTHS))}. Give samples, inputs of a size "
            "that it takes."
        ) from why

    def _keras(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the outputs of the Keras model for a batch, an array per output."""
        found = self.model(keras.tree.pack_sequence_as(self.model.input, inputs), training=False)
        return [keras.ops.convert_to_numpy(array) for array in keras.tree.flatten(found)]

    def answers(
        self, onnx_session: "InferenceSession", inputs: list[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the outputs of Keras and of the file for a batch, each an array per output."""
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
        """Returns the largest difference over batches.

        Raises:
            ValueError: an output is NaN or infinite, or of another shape.
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
                if expected.shape != answer.shape:
                    raise ValueError(
                        f"The model answers with shape {expected.shape} in Keras and with shape "
                        f"{answer.shape} in ONNX Runtime. Build the trunk with fixed sizes."
                    )
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
        """Measures a file's accuracy, and how often its class is that of Keras.

        Args:
            onnx_session: a session of the file.
            labelled: one pair (inputs, labels), or several; see `labelled_batches`.

        Returns:
            A dict: `accuracy`, `keras_accuracy` (of the Keras model) and `agreement`, all 0 to 1,
            and `images`, their number.

        Raises:
            ValueError: the model does not classify, or the labels do not fit.
        """
        right = right_in_keras = same = total = 0
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
            right_in_keras += int(np.sum(ours[:count] == labels))
            same += int(np.sum(theirs[:count] == ours[:count]))
            total += count
        if not total:
            raise ValueError("evaluate has no examples. Give some, or leave it out.")
        counts = {"accuracy": right, "keras_accuracy": right_in_keras, "agreement": same}
        return {name: count / total for name, count in counts.items()} | {"images": total}


def random_inputs(
    model: keras.Model,
    shapes: Sequence[tuple[int, ...]],
    pixels: Pixels | None,
    pixel_range: tuple[float, float],
    integers: tuple[int, int] = SAFE,
) -> list[np.ndarray]:
    """Returns random inputs in a model's dtypes.

    Float images are uniform in the pixel range, or preprocessed uint8 images if the file has
    preprocessing. Other floats are uniform in 0 to 1; or in -1 to 1, the first example 0, if the
    range of integers begins below 0. uint8 images are uniform in 0 to 255. Other integers are 0 or
    1, which are valid indices of any embedding, or in the given range; unsigned ones are not
    negative.

    Args:
        model: the model.
        shapes: shapes of its inputs, batch included.
        pixels: the preprocessing in the file; None if there is none.
        pixel_range: lowest and highest value of images.
        integers: the lowest integer, and the one after the highest.
    """
    generator = np.random.default_rng(0)
    arrays, tensors = [], keras.tree.flatten(model.inputs)
    for tensor, shape in zip(tensors, shapes, strict=True):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        picture = len(tensors) == 1 and len(shape) == 4
        if pixels is not None:
            arrays.append(pixels.pixels(generator.integers(0, 256, shape).astype(np.uint8)))
        elif "int" in dtype or dtype == "bool":
            low, high = SAFE if dtype == "bool" else integers
            if "uint" in dtype:
                low, high = 0, 256 if picture and dtype == "uint8" else high
            arrays.append(generator.integers(low, high, shape).astype(dtype))
        else:
            least, most = pixel_range if picture else (max(integers[0], -1), 1)
            values = least + (most - least) * generator.random(shape)
            if not picture and least < 0:
                values[0] = 0
            arrays.append(values.astype(dtype))
    return arrays


def _check_finite(logits: list[np.ndarray], found: list[np.ndarray]) -> None:
    for who, arrays in (("Keras", logits), ("ONNX Runtime", found)):
        for values in arrays:
            if not np.isfinite(values).all():
                raise ValueError(
                    f"The model answers NaN or infinite numbers in {who}, so it cannot be compared."
                )
