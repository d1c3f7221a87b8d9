"""The trunk, images and heads of a run, the same for every method."""

import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from packnet_tf.apps.images.folders import Folder, readable, shuffled
from packnet_tf.apps.images.heads import calibrated_head
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.images.trunks import load_trunk, pretrained_head
from packnet_tf.apps.packs.base import BASE_IMAGES
from packnet_tf.apps.packs.beginning import Images
from packnet_tf.apps.research.runs import Run, folder_of
from packnet_tf.apps.research.settings import Settings
from packnet_tf.packing.cloning import attach
from packnet_tf.training.heads import collect, fitted_head


@dataclasses.dataclass
class TaskData:
    """A task of a run.

    Attributes:
        name: name of the task.
        place: 0-based place in the order of learning.
        settings: its training settings.
        folder: its classes and image files.
        pipeline: the pipeline for these files.
    """

    name: str
    place: int
    settings: Settings
    folder: Folder
    pipeline: Pipeline

    @property
    def classes(self) -> int:
        return len(self.folder.classes)

    @property
    def steps(self) -> int:
        """The number of training steps per epoch."""
        return math.ceil(len(self.folder.files["train"]) / self.settings.batch_size)

    @functools.cached_property
    def train(self):
        """Training batches (images, labels), shuffled and augmented anew in every epoch."""
        settings = self.settings
        return self.pipeline.training(self.folder.files["train"], settings.flip, settings.crop)

    @functools.cached_property
    def validation(self):
        """Validation batches (images, labels), not augmented, in file order."""
        return self.pipeline.evaluation(self.folder.files["validation"])

    @functools.cached_property
    def test(self):
        """Test batches (images, labels), not augmented, in file order."""
        return self.pipeline.evaluation(self.folder.files["test"])

    @functools.cached_property
    def plain(self):
        """Training batches (images, labels), shuffled once, not augmented."""
        return self.pipeline.evaluation(shuffled(self.folder.files["train"], self.pipeline.seed))

    def with_own_images(self, **changes: Any) -> "TaskData":
        """Returns a copy with images of its own, which leave the memory together with it.

        Args:
            **changes: other values of attributes.
        """
        return dataclasses.replace(self, **changes)

    def images(self) -> Images:
        """Returns the data for `begin`; its training dataset is separate from `train`."""
        files, settings = self.folder.files, self.settings
        return Images(
            self.plain,
            self.pipeline.training(files["train"], settings.flip, settings.crop),
            self.pipeline.evaluation(shuffled(files["validation"], self.pipeline.seed)),
            self.classes,
            settings.epochs * math.ceil(len(files["train"]) / settings.batch_size),
        )

    def repair_images(self):
        """Returns training batches for the repair of a base, not augmented."""
        files = shuffled(self.folder.files["train"], self.pipeline.seed)
        return self.pipeline.evaluation(files[:BASE_IMAGES])


class Job:
    """A run and its folder.

    Args:
        run: the run.
        folder: folder for its progress and its result.

    Attributes:
        linear_heads: by task, why a linear head is in place of what was trained.
    """

    def __init__(self, run: Run, folder: pathlib.Path):
        self.run, self.folder = run, folder
        self.linear_heads: dict[str, str] = {}

    def trunk(self) -> keras.Model:
        """Builds the trunk, from pixels of 0 to 255 to one feature vector.

        Random weights are drawn from the run's seed.
        """
        keras.utils.set_random_seed(self.run.seed)
        given = self.run.trunk
        return load_trunk(
            given["network"], self.run.image_size, given["output"], given["pixel_scale"],
            given["weights"],
        )  # fmt: skip

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """The shape (height, width, channels) of the images."""
        return self.trunk().input_shape[1:]

    @functools.cached_property
    def tasks(self) -> list[TaskData]:
        """The tasks, in order."""
        tasks = []
        for place, task in enumerate(self.run.tasks):
            settings = Settings(**task["settings"])
            pipeline = Pipeline(
                self.shape, settings.batch_size, self.run.seed, settings.cache,
                shorter_side=settings.shorter_side,
            )  # fmt: skip
            listed = folder_of(task, self.run.seed)
            folder = readable(listed)
            for note in listed.notes + folder.notes:
                print(f"{task['name']}: {note}")
            for reason in sorted(folder.unreadable.values()):
                print(f"Skipped: {reason}")
            tasks.append(TaskData(task["name"], place, settings, folder, pipeline))
        return tasks

    def seed(self, place: int) -> None:
        """Seeds the random numbers for the task at a place in the order."""
        keras.utils.set_random_seed(self.run.seed + place)

    def head(
        self, task: TaskData, features_of: Callable, trained: bool, factor: float = 1.0
    ) -> keras.layers.Layer:
        """Returns a head for a task, of the kind in its settings.

        Args:
            task: the task.
            features_of: function from images to the features that the head is trained on.
            trained: whether these features come from a trained trunk.
            factor: see `calibrated_head`.
        """
        if task.settings.head == "pretrained":
            given = self.run.trunk
            head = pretrained_head(
                given["network"], given["output"], self.run.image_size, given["weights"]
            )
            if head.units != task.classes:
                raise ValueError(
                    f"The classifier that the network came with has {head.units} outputs, and task "
                    f"'{task.name}' has {task.classes} classes. head: pretrained is for the task "
                    "that the network was trained on, with all its classes."
                )
            return head
        if task.settings.head == "linear":
            return keras.layers.Dense(task.classes)
        if trained:
            return fitted_head(collect(features_of, task.plain), task.classes)
        return calibrated_head(features_of, task.plain, task.classes, factor)


def accuracy(model: keras.Model, task: TaskData, split: str) -> float:
    """Returns the accuracy of a model on a split of a task, 0 to 1."""
    labels = [label for _, label in task.folder.files[split]]
    outputs = model.predict(getattr(task, split), verbose=0)
    return float(np.mean(outputs.argmax(-1) == np.array(labels)))


def saved_bytes(model: keras.Model) -> int:
    """Returns the size of a model's `.keras` file in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def network_bytes(trunk: keras.Model, heads) -> tuple[int, int]:
    """Returns the bytes on disk of one network with the first head, and of one per head."""
    sizes = [saved_bytes(attach(trunk, head, "network")[0]) for head in heads]
    return sizes[0], sum(sizes)
