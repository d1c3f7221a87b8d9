"""A task of a pack as a classifier of image files."""

from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.device.classifier import most_probable, scaled
from packnet_tf.apps.images.pixels import read_image
from packnet_tf.apps.packs.opening import check_shapes, pixel_range
from packnet_tf.export.graph.outputs import are_probabilities
from packnet_tf.net import PackNet


class PackClassifier:
    """Classifies image files with a task of a pack, as `Classifier` does with an exported file.

    Args:
        net: the pack.
        task: name of a committed task whose head gives one row of logits or probabilities.
        pack: the pack's file, for messages.

    Attributes:
        path: the pack's file.
        task: the task's name.
        classes: names of the classes, by index; None if the pack has none.
        count: number of classes.
        size: (height, width) that images are resized to.

    Raises:
        ValueError: the task does not classify images.
    """

    def __init__(self, net: PackNet, task: str, pack: str) -> None:
        check_shapes(net.state.trunk, pack)
        self.path, self.task, self.classes = pack, task, net.classes(task)
        self._model = net.task_model(task)
        shape = self._model.output_shape
        if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] == 1:
            raise ValueError(
                f"Task '{task}' of '{pack}' does not classify: its head gives {shape}, expected "
                "(batch, classes). Leave it out of --data."
            )
        self.count = shape[1]
        height, width, self._channels = net.state.trunk.input_shape[1:]
        self.size = (height, width)
        self._range = pixel_range(net, pack)

    def load(self, path: str) -> np.ndarray:
        """Reads an image file for `top_of`, as uint8 (height, width, channels).

        Raises:
            OSError: the image cannot be read.
        """
        return read_image(path, *self.size, self._channels)

    def top_of(self, images: Sequence[np.ndarray], k: int) -> list[list[tuple[int, float]]]:
        """Returns the most probable classes of images, as `Classifier.top_of` does.

        Raises:
            ValueError: an answer is NaN or infinite.
        """
        if not images:
            return []
        answers = self._model.predict_on_batch(scaled(np.stack(images), self._range))
        answers = np.asarray(answers, np.float64)
        if not np.isfinite(answers).all():
            raise ValueError(
                f"Task '{self.task}' of '{self.path}' answers NaN or infinite numbers. Train the "
                "task again, at a lower learning rate, or leave it out of --data."
            )
        return most_probable(answers, are_probabilities(answers), k)
