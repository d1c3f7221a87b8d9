"""Measures the tasks of a pack on labelled images, for a page."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from packnet_tf.apps.device.classifier import Classifier
from packnet_tf.apps.device.evaluation import Answer, Answers, confusion_matrix, evaluate
from packnet_tf.apps.device.exported import exported_files
from packnet_tf.apps.device.labelled import Labelled, folders_by_task, labelled_images
from packnet_tf.apps.pages.pack_classifier import PackClassifier
from packnet_tf.net import PackNet

WORST = 24  # pictures per task


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a task answers to labelled images.

    Attributes:
        task: the task's name.
        source: the file that answered.
        images: the images.
        answers: the answers to those that can be read.
    """

    task: str
    source: str
    images: Labelled
    answers: Answers

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        found = self.answers.images
        return sum(one.classes[0] == one.label for one in found) / len(found)

    @property
    def confusion(self) -> np.ndarray:
        """The number of images by right class (rows) and answered class (columns)."""
        return confusion_matrix(self.answers.images, len(self.images.classes))

    @property
    def worst(self) -> list[Answer]:
        """The wrong answers that were given with the highest probability, at most `WORST`."""
        wrong = [one for one in self.answers.images if one.classes[0] != one.label]
        return sorted(wrong, key=lambda one: (-one.probabilities[0], one.path))[:WORST]


def measure(net: PackNet, pack: str, data: Sequence[str], model: str | None) -> Iterator[Measured]:
    """Measures tasks on their images, one after the other.

    Args:
        net: the pack.
        pack: its file.
        data: folders by task, see `folders_by_task`.
        model: an exported file, or a folder of them, that answers instead of the pack. Tasks that
            `data` does not name are then measured on the folders noted in the pack.

    Raises:
        OSError, ValueError: a folder or a file does not fit; the message says what.
    """
    for classifier, folder in _pairs(net, pack, data, model):
        print(f"Measuring {classifier.task} on {folder} ...", flush=True)
        images = labelled_images(folder, None, classifier.classes, classifier.count)
        answers, _ = evaluate(classifier, images)
        yield Measured(classifier.task, classifier.path, images, answers)


def _pairs(
    net: PackNet, pack: str, data: Sequence[str], model: str | None
) -> Iterator[tuple[Classifier | PackClassifier, str]]:
    if model is None:
        for task, folder in folders_by_task("--data", data, net.tasks).items():
            yield PackClassifier(net, task, pack), folder
        return
    files = [Classifier(path) for path in exported_files(model)]
    unknown = [found.task for found in files if found.task not in net.tasks]
    if unknown:
        raise ValueError(
            f"'{model}' has the task '{unknown[0]}', and '{pack}' has {', '.join(net.tasks)}. Name "
            "files that were exported from this pack."
        )
    given = folders_by_task("--data", data, [found.task for found in files])
    for found in files:
        folder = given.get(found.task) or net.metadata(found.task).get("data")
        if folder is not None:
            yield found, folder
        elif found.task != net.base:
            print(f"{found.task}: not measured, since --data does not name its images.")
