"""classify images with an exported model.

Needs onnxruntime, numpy and pillow; TensorFlow is not imported.

Example:
  packnet predict --model=onnx/model_task3.onnx photo1.jpg photo2.jpg
"""

import json
import os

import numpy as np
from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.pixels import read_image
from packnet_tf.export.runtime import session

FLAGS = cli.new_flags()
REQUIRED = ("model",)
TAKES_ARGUMENTS = True
flags.DEFINE_string("model", None, "The .onnx file of a task.", flag_values=FLAGS)
flags.DEFINE_integer(
    "top", 3, "How many classes to print per image.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_string(
    "pixel_range",
    None,
    "Lowest and highest pixel value the model wants, for instance 0,1. Read from the model's "
    "metadata where it was trained by packnet train.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "image_size", 224, "Size in pixels where the model takes any.", 1, flag_values=FLAGS
)


class Classifier:
    """An exported task, ready to classify image files."""

    def __init__(self, path: str, pixel_range: str | None, image_size: int):
        cli.need("onnxruntime", "onnxruntime")
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no model '{path}'. packnet export writes one.")
        try:
            self._session = session(path)
        except Exception as error:  # onnxruntime's own kinds, none of them public
            raise ValueError(
                f"'{path}' is not a model that onnxruntime can read: {error}. Write it again with "
                "packnet export."
            ) from error
        facts = self._session.get_modelmeta().custom_metadata_map
        entry = self._session.get_inputs()[0]
        if len(entry.shape) != 4:
            raise ValueError(
                f"'{path}' does not classify images: its input '{entry.name}' has shape "
                f"{entry.shape}, expected (batch, height, width, channels)"
            )
        batch, height, width, channels = entry.shape
        self._batch = batch if isinstance(batch, int) else 1
        self._size = [side if isinstance(side, int) else image_size for side in (height, width)]
        self._channels = channels
        self._input = entry.name
        self._low, self._high = _range(pixel_range or facts.get("pixel_range"), path)
        self._gives_probabilities = self._session.get_outputs()[0].name == "probabilities"
        self.classes = json.loads(facts["classes"]) if "classes" in facts else None
        self.task = facts.get("task", "?")

    def probabilities(self, path: str) -> np.ndarray:
        """Class probabilities of one image file, shape (classes,), float32."""
        image = read_image(path, *self._size, self._channels).astype(np.float32)
        image = image / 255.0 * (self._high - self._low) + self._low
        images = np.repeat(image[None], self._batch, axis=0)  # a fixed batch wants to be full
        (answer,) = self._session.run(None, {self._input: images})
        answer = answer[0].astype(np.float64)
        if not self._gives_probabilities:
            answer = np.exp(answer - answer.max())
            answer = answer / answer.sum()
        return answer.astype(np.float32)


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


def run(values: flags.FlagValues, images: list[str]) -> None:
    if not images:
        raise cli.UsageError("name at least one image file")
    classifier = Classifier(values.model, values.pixel_range, values.image_size)
    failed = []
    for path in images:
        try:
            chances = classifier.probabilities(path)
        except OSError as error:
            failed.append(str(error))
            continue
        best = np.argsort(-chances, kind="stable")[: values.top]
        names = classifier.classes or [f"class {number}" for number in range(len(chances))]
        print(f"{path}: " + ", ".join(f"{names[number]} {chances[number]:.1%}" for number in best))
    if failed:
        raise OSError("; ".join(failed))
