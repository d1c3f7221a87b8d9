"""An exported task, ready to classify images. Neither Keras nor TensorFlow is imported."""

import json
import os
from collections.abc import Sequence

import numpy as np
from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.weight_files import changed_weights, weight_files
from packnet_tf.apps.images.pixels import read_image, read_whole_image
from packnet_tf.export.runtime.session import session

COPY = "Copy the model and its weights again, from one export to one folder."
TOP = ["top_classes", "top_probabilities"]
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class NotAClassifierError(ValueError):
    """The file takes or gives something else than images and classes."""


class Classifier:
    """An exported task, ready to classify image files.

    Files with a float input get the picture resized to the size they want, in their range of pixel
    values. Files with a uint8 input of any height and width do that themselves: they get the
    picture as it is, upright.

    Args:
        path: the `.onnx` file.
        pixel_range: "low,high", the lowest and the highest pixel value that a float input wants;
            None for what the file says.
        image_size: height and width in pixels where a float input takes any.

    Attributes:
        path: the file, as given.
        task: the task's name; "?" where the file does not say.
        classes: the names of the classes, in the order of their indices; None where the file has
            none.
        count: how many classes there are; None where the file does not say.
        precision: as the file says it, "float32" for instance, or None.
        size: (height, width) that pictures are resized to; None for files that take any.
        channels: 3 for RGB, 1 for grey.

    Raises:
        FileNotFoundError: the file is missing, or one that holds its weights.
        NotAClassifierError: it does not classify images.
        ValueError: onnxruntime cannot read it.
        UsageError: the range of pixel values is not known.

    Example:
        >>> classifier = Classifier("model_task1.onnx")
        >>> classifier.top("photo.jpg", 2)
        [(3, 0.91), (0, 0.06)]
    """

    def __init__(self, path: str, pixel_range: str | None = None, image_size: int = 224):
        cli.need("onnxruntime", "onnxruntime")
        self.path = path
        self._session = _open(path)
        facts = self._session.get_modelmeta().custom_metadata_map
        entry = _only_input(self._session.get_inputs(), path)
        self._outputs, self.count = _outputs(self._session.get_outputs(), path)
        self._input, self._dtype = entry.name, _DTYPES[entry.type]
        batch, height, width, self.channels = entry.shape
        self._batch = batch if isinstance(batch, int) else None
        free = not isinstance(height, int) and not isinstance(width, int)
        if free and self._dtype == np.uint8:
            self.size = None
        else:
            self.size = tuple(s if isinstance(s, int) else image_size for s in (height, width))
        self._range = None
        if self._dtype != np.uint8:
            self._range = _range(pixel_range or facts.get("pixel_range"), path)
        self._backwards = _channel_order(facts.get("channel_order", "rgb"), path) == "bgr"
        self.task = facts.get("task", "?")
        self.precision = facts.get("precision")
        self.classes = json.loads(facts["classes"]) if "classes" in facts else None
        if self.classes is not None:
            if self.count not in (None, len(self.classes)):
                raise ValueError(
                    f"'{path}' names {len(self.classes)} classes and answers with {self.count}. "
                    "Write it again with packnet export."
                )
            self.count = len(self.classes)

    def top(self, path, k: int) -> list[tuple[int, float]]:
        """The likeliest classes of an image file.

        Args:
            path: an image file.
            k: how many classes; there are fewer where the file gives fewer.

        Returns:
            Pairs (index of the class, probability), the likeliest first.

        Raises:
            OSError: the image cannot be read.
        """
        return self.top_of([self.load(path)], k)[0]

    def load(self, path) -> np.ndarray:
        """Reads an image file for `top_of`: uint8 (height, width, channels).

        Raises:
            OSError: the image cannot be read.
        """
        if self.size is None:
            return read_whole_image(path, self.channels)
        return read_image(path, *self.size, self.channels)

    def top_of(self, images: Sequence[np.ndarray], k: int) -> list[list[tuple[int, float]]]:
        """As `top`, for a batch of images that `load` gave.

        Images of any size go through the network one by one, others together.
        """
        step = 1 if self.size is None else self._batch or max(1, len(images))
        answers = []
        for at in range(0, len(images), step):
            answers += self._run(images[at : at + step], k)
        return answers

    def _run(self, images, k: int) -> list[list[tuple[int, float]]]:
        batch = np.stack(images)
        if self._backwards:
            batch = batch[..., ::-1]
        if self._range is not None:
            low, high = self._range
            batch = batch.astype(np.float32) / 255.0 * (high - low) + low
        if self._batch is not None:  # a fixed batch wants to be full
            batch = np.concatenate([batch, batch[-1:].repeat(self._batch - len(batch), axis=0)])
        batch = np.ascontiguousarray(batch, self._dtype)
        answers = self._session.run(self._outputs, {self._input: batch})
        answers = [answer[: len(images)] for answer in answers]
        if not np.isfinite(answers[-1]).all():
            raise ValueError(
                f"'{self.path}' answers NaN or infinite numbers. Train the task again, or, where "
                "it was exported in a lower precision, export it in float32."
            )
        if self._outputs == TOP:
            pairs = zip(*answers, strict=True)
        else:
            chances = answers[0].astype(np.float64)
            if self._outputs == ["logits"]:
                chances = _softmax(chances)
            best = np.argsort(-chances, axis=1, kind="stable")
            pairs = zip(best, np.take_along_axis(chances, best, axis=1), strict=True)
        return [
            [(int(index), float(chance)) for index, chance in zip(*pair, strict=True)][:k]
            for pair in pairs
        ]


def _open(path: str):
    """The session of a file, or an error that says which file to look at."""
    if os.path.isdir(path):
        raise IsADirectoryError(
            f"'{path}' is a folder. Name the file of one task, for instance "
            f"{os.path.join(path, 'model_task1.onnx')}."
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model '{path}'. packnet export writes one.")
    for file, what in changed_weights(path).items():
        raise ValueError(f"'{path}' has weights in '{file}', which does not fit: {what}. {COPY}")
    try:
        return session(path)
    except Exception as error:  # onnxruntime's own kinds, none of them public
        beside = weight_files(path)
        for file in beside:
            if not file.is_file():
                raise FileNotFoundError(
                    f"'{path}' has weights in '{file}', which is missing. {COPY}"
                ) from error
        if beside:
            files = " or ".join(f"'{file}'" for file in beside)
            raise ValueError(
                f"'{path}' has weights in {files}, which does not fit: {error}. {COPY}"
            ) from error
        raise ValueError(
            f"'{path}' is not a model that onnxruntime can read: {error}. Write it again with "
            "packnet export."
        ) from error


def _only_input(entries, path: str):
    """The input of a file, which must take images."""
    images = "one input of shape (batch, height, width, 3 or 1), float or uint8"
    if len(entries) != 1:
        names = ", ".join(f"'{entry.name}'" for entry in entries)
        raise NotAClassifierError(
            f"'{path}' does not classify images: it has the inputs {names}, expected {images}."
        )
    (entry,) = entries
    if len(entry.shape) != 4 or entry.shape[3] not in (1, 3) or entry.type not in _DTYPES:
        raise NotAClassifierError(
            f"'{path}' does not classify images: its input '{entry.name}' is {entry.type} of shape "
            f"{entry.shape}, expected {images}."
        )
    return entry


def _outputs(entries, path: str) -> tuple[list[str], int | None]:
    """The names of the outputs to ask for, and how many classes there are where that is known."""
    shapes = {entry.name: entry.shape for entry in entries}
    if set(TOP) <= set(shapes):
        return TOP, None
    for name in ("logits", "probabilities"):
        if list(shapes) == [name] and len(shapes[name]) == 2 and shapes[name][1] != 1:
            count = shapes[name][1]
            return [name], count if isinstance(count, int) else None
    answers = ", ".join(f"'{name}' of shape {shape}" for name, shape in shapes.items())
    raise NotAClassifierError(
        f"'{path}' does not classify: it answers with {answers}, expected 'logits' or "
        "'probabilities' of shape (batch, classes), or 'top_classes' and 'top_probabilities'. Run "
        "it with onnxruntime itself."
    )


def _range(text: str | None, path: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in (text or "").split(","))
    except ValueError:
        said = f"got '{text}'" if text else f"'{path}' does not say it"
        raise cli.UsageError(
            "the pixel range is two numbers, the lowest and the highest pixel value the model "
            f"wants; {said}. Add --pixel_range=0,1 or --pixel_range=0,255"
        ) from None
    return low, high


def _channel_order(text: str, path: str) -> str:
    if text not in ("rgb", "bgr"):
        raise ValueError(
            f"'{path}' wants its channels in the order '{text}', expected 'rgb' or 'bgr'. Export "
            "it again with one of those as channel_order."
        )
    return text


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags `pixel_range` and `image_size` to those of a command."""
    flags.DEFINE_string(
        "pixel_range",
        None,
        "Lowest and highest pixel value that a model with a float input wants, for instance 0,1. "
        "Read from its metadata where it was trained by packnet train.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "image_size", 224, "Size in pixels where a float input takes any.", 1, flag_values=values
    )
