"""Classifies images with an exported task. Imports neither Keras nor TensorFlow."""

from collections.abc import Sequence

import numpy as np
from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.sessions import Session, open_file
from packnet_tf.apps.images.pixels import read_image, read_whole_image
from packnet_tf.backend.text import quoted
from packnet_tf.export.graph.outputs import softmax
from packnet_tf.export.runtime.session import class_names, provider_name

TOP = ["top_classes", "top_probabilities"]
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class NotAClassifierError(ValueError):
    """Raised for a file that does not take images or does not give classes."""


class ImageModel:
    """An exported file that takes images.

    For a float input, images are resized to the input's size and scaled to its pixel range. A file
    with a uint8 input of any size does both itself: it gets the image at its own size, upright.

    Args:
        path: the `.onnx` file.
        opened: a session of the file, or of one of its tasks.
        pixel_range: "low,high", the lowest and the highest pixel value of a float input; default
            from the file's metadata.
        image_size: height and width in pixels, for a float input of any size.

    Attributes:
        path: the file, as given.
        facts: its metadata.
        size: (height, width) that images are resized to; None for files that take any size.
        channels: 3 for RGB, 1 for grey.

    Raises:
        NotAClassifierError: it does not take images.
        UsageError: the pixel range is not known.
    """

    def __init__(
        self, path: str, opened: Session, pixel_range: str | None = None, image_size: int = 224
    ):
        self.path = path
        self._session = opened
        self.facts = opened.get_modelmeta().custom_metadata_map
        entry = _only_input(opened.get_inputs(), path)
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
            self._range = _range(pixel_range or self.facts.get("pixel_range"), path)
        self._backwards = _channel_order(self.facts.get("channel_order", "rgb"), path) == "bgr"

    def load(self, path) -> np.ndarray:
        """Reads an image file for `answers`, as uint8 (height, width, channels).

        Raises:
            OSError: the image cannot be read.
        """
        if self.size is None:
            return read_whole_image(path, self.channels)
        return read_image(path, *self.size, self.channels)

    def answers(self, images: Sequence[np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Returns outputs of the file for images of one size, which were read by `load`.

        Raises:
            ValueError: it cannot be run, or answers NaN or infinite numbers.
        """
        batch = np.stack(images)
        if self._backwards:
            batch = batch[..., ::-1]
        if self._range is not None:
            batch = scaled(batch, self._range)
        if self._batch is not None:  # fill a fixed batch
            batch = np.concatenate([batch, batch[-1:].repeat(self._batch - len(batch), axis=0)])
        batch = np.ascontiguousarray(batch, self._dtype)
        try:
            answers = self._session.run(outputs, {self._input: batch})
        except Exception as error:  # onnxruntime's exception classes are not public
            raise ValueError(
                f"'{self.path}' cannot be run: {quoted(error)}. It may be damaged: copy it again, "
                "or write it again with packnet export."
            ) from error
        answers = [answer[: len(images)] for answer in answers]
        if not np.isfinite(answers[-1]).all():
            raise ValueError(
                f"'{self.path}' answers NaN or infinite numbers. Train the task again, or, where "
                "it was exported in a lower precision, export it in float32."
            )
        return answers


class Classifier(ImageModel):
    """An exported task that classifies image files.

    Args:
        path, pixel_range, image_size: as for `ImageModel`.
        provider: onnxruntime's execution provider, "cpu" or "cuda" for instance.
        opened: a session of the file, or of one of its tasks; by default the file is opened.

    Attributes:
        task: the task's name; "?" if the file does not name it.
        classes: names of the classes, by index; None if the file has none.
        count: number of classes; None if unknown.
        precision: precision by the file's metadata, "float32" for instance; None if unknown.

    Raises:
        FileNotFoundError: the file, or a file with its weights, is missing.
        NotAClassifierError: it does not classify images.
        ValueError: onnxruntime cannot read it.
        ProviderError: the provider is not available.
        UsageError: the pixel range is not known.

    Example:
        >>> classifier = Classifier("model_task1.onnx")
        >>> classifier.top("photo.jpg", 2)
        [(3, 0.91), (0, 0.06)]
    """

    def __init__(
        self,
        path: str,
        pixel_range: str | None = None,
        image_size: int = 224,
        provider: str = "cpu",
        opened: Session | None = None,
    ):
        opened = opened or open_file(path, provider)
        _only_input(opened.get_inputs(), path)
        self._outputs, self.count = _outputs(opened.get_outputs(), path)
        super().__init__(path, opened, pixel_range, image_size)
        self.task = self.facts.get("task", "?")
        self.precision = self.facts.get("precision")
        self.classes = class_names(self.facts, path)
        if self.classes is not None:
            if self.count not in (None, len(self.classes)):
                raise ValueError(
                    f"'{path}' names {len(self.classes)} classes and answers with {self.count}. "
                    "Write it again with packnet export."
                )
            self.count = len(self.classes)

    def top(self, path, k: int) -> list[tuple[int, float]]:
        """Returns the most probable classes of an image file.

        Args:
            path: an image file.
            k: number of classes to return; fewer if the file gives fewer.

        Returns:
            Pairs (index of the class, probability), the most probable first.

        Raises:
            OSError: the image cannot be read.
        """
        return self.top_of([self.load(path)], k)[0]

    def top_of(self, images: Sequence[np.ndarray], k: int) -> list[list[tuple[int, float]]]:
        """Returns the same as `top` for images read by `load`.

        Images at their own size go through the network one by one, resized ones as a batch.
        """
        step = 1 if self.size is None else self._batch or max(1, len(images))
        answers = []
        for at in range(0, len(images), step):
            answers += self._run(images[at : at + step], k)
        return answers

    def _run(self, images, k: int) -> list[list[tuple[int, float]]]:
        answers = self.answers(images, self._outputs)
        if self._outputs == TOP:
            return _pairs(*answers, k)
        return most_probable(answers[0], self._outputs == ["probabilities"], k)


def scaled(images: np.ndarray, pixel_range: tuple[float, float]) -> np.ndarray:
    """Scales uint8 images to a range of pixel values, as float32."""
    low, high = pixel_range
    return images.astype(np.float32) / 255.0 * (high - low) + low


def most_probable(
    answers: np.ndarray, probabilities: bool, k: int
) -> list[list[tuple[int, float]]]:
    """Returns the most probable classes of each image.

    Args:
        answers: logits or probabilities (n, classes).
        probabilities: whether they are probabilities.
        k: number of classes to return; fewer if there are fewer.

    Returns:
        For each image, pairs (index of the class, probability), the most probable first. Of classes
        as probable as each other, that with the smaller index is first.

    Example:
        >>> most_probable(np.array([[0.25, 0.75]]), True, 1)
        [[(1, 0.75)]]
    """
    chances = answers.astype(np.float64) if probabilities else softmax(answers)
    best = np.argsort(-chances, axis=1, kind="stable")
    return _pairs(best, np.take_along_axis(chances, best, axis=1), k)


def _pairs(best: np.ndarray, chances: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    return [
        [(int(index), float(chance)) for index, chance in zip(*row, strict=True)][:k]
        for row in zip(best, chances, strict=True)
    ]


def _only_input(entries, path: str):
    """Returns the only input of a file, and checks that it takes images."""
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
    """Returns the names of the outputs to compute, and the number of classes if it is known."""
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


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags `pixel_range`, `image_size` and `provider` for a command."""
    flags.DEFINE_string(
        "pixel_range",
        None,
        "Lowest and highest pixel value of a model's float input, for instance 0,1. Models trained "
        "by packnet train have it in their metadata.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "image_size", 224, "Size in pixels for a float input of any size.", 1, flag_values=values
    )
    flags.DEFINE_string(
        "provider",
        "cpu",
        "Execution provider of onnxruntime: cpu, cuda, or another one that is installed.",
        flag_values=values,
    )


def chosen_provider(values: flags.FlagValues) -> str:
    """Returns onnxruntime's name of `--provider`.

    Raises:
        UsageError: onnxruntime does not have it.
    """
    cli.need("onnxruntime", "onnxruntime")
    with cli.as_usage():
        return provider_name(values.provider)
