"""What a run works with: the trunk, the images of its tasks, heads; the same for every method."""

import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Callable

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
        name: of the task.
        place: in the order of learning, from 0.
        settings: how it is learnt.
        folder: its classes and image files.
        pipeline: that makes datasets of them.
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
        """Training steps of an epoch."""
        return math.ceil(len(self.folder.files["train"]) / self.settings.batch_size)

    @functools.cached_property
    def train(self):
        """Batches of (images, labels), shuffled and augmented anew in every epoch."""
        settings = self.settings
        return self.pipeline.training(self.folder.files["train"], settings.flip, settings.crop)

    @functools.cached_property
    def validation(self):
        """Batches of (images, labels), as they are, in the order of the files."""
        return self.pipeline.evaluation(self.folder.files["validation"])

    @functools.cached_property
    def test(self):
        """The same of the test images."""
        return self.pipeline.evaluation(self.folder.files["test"])

    @functools.cached_property
    def plain(self):
        """The training images, not augmented, in an order that mixes the classes."""
        return self.pipeline.evaluation(shuffled(self.folder.files["train"], self.pipeline.seed))

    def images(self) -> Images:
        """The data that the task begins with; augmented anew, not as `train` is."""
        files, settings = self.folder.files, self.settings
        return Images(
            self.plain,
            self.pipeline.training(files["train"], settings.flip, settings.crop),
            self.pipeline.evaluation(shuffled(files["validation"], self.pipeline.seed)),
            self.classes,
        )

    def repair_images(self):
        """Training images for the repair of a base, as `plain`."""
        files = shuffled(self.folder.files["train"], self.pipeline.seed)
        return self.pipeline.evaluation(files[:BASE_IMAGES])


class Job:
    """A run at work in its folder.

    Args:
        run: what to do.
        folder: where it keeps what it needs to continue, and its result.
    """

    def __init__(self, run: Run, folder: pathlib.Path):
        self.run, self.folder = run, folder

    def trunk(self) -> keras.Model:
        """A new copy of the trunk: pixels of 0 to 255 in, one feature vector out.

        Random weights are those of the run's seed.
        """
        keras.utils.set_random_seed(self.run.seed)
        given = self.run.trunk
        return load_trunk(
            given["network"], self.run.image_size, given["output"], given["pixel_scale"],
            given["weights"],
        )  # fmt: skip

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """Of the images."""
        return self.trunk().input_shape[1:]

    @functools.cached_property
    def tasks(self) -> list[TaskData]:
        """The tasks in their order."""
        tasks = []
        for place, task in enumerate(self.run.tasks):
            settings = Settings(**task["settings"])
            pipeline = Pipeline(
                self.shape, settings.batch_size, self.run.seed, settings.cache,
                shorter_side=settings.shorter_side,
            )  # fmt: skip
            folder = readable(folder_of(task, self.run.seed))
            for note in folder.notes:
                print(f"{task['name']}: {note}")
            for reason in sorted(folder.unreadable.values()):
                print(f"Skipped: {reason}")
            tasks.append(TaskData(task["name"], place, settings, folder, pipeline))
        return tasks

    def seed(self, place: int) -> None:
        """The random numbers that the task at a place begins with."""
        keras.utils.set_random_seed(self.run.seed + place)

    def head(
        self, task: TaskData, features_of: Callable, trained: bool, factor: float = 1.0
    ) -> keras.layers.Layer:
        """A head for a task, of the kind that its settings say.

        Args:
            task: the task.
            features_of: from images to the features that the head is trained on.
            trained: whether these are of a trunk that has learnt something.
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
            return fitted_head(*collect(features_of, task.plain), task.classes)
        return calibrated_head(features_of, task.plain, task.classes, factor)


def accuracy(model: keras.Model, task: TaskData, split: str) -> float:
    """The share of a split's images whose largest output is that of their label, 0 to 1."""
    labels = [label for _, label in task.folder.files[split]]
    outputs = model.predict(getattr(task, split), verbose=0)
    return float(np.mean(outputs.argmax(-1) == np.array(labels)))


def saved_bytes(model: keras.Model) -> int:
    """The size of a model's `.keras` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def network_bytes(trunk: keras.Model, heads) -> tuple[int, int]:
    """Bytes on disk of one network with the first head, and of one network per head."""
    sizes = [saved_bytes(attach(trunk, head, "network")[0]) for head in heads]
    return sizes[0], sum(sizes)
