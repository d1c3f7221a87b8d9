"""Measures the tasks of a pack on labelled images, for a page."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from packnet_tf.apps import cli
from packnet_tf.apps.device.classifier import Classifier, NotAClassifierError
from packnet_tf.apps.device.evaluation import (
    Answer,
    Answers,
    confusion_matrix,
    evaluate,
    summary,
)
from packnet_tf.apps.device.exported_files import exported_files
from packnet_tf.apps.device.labelled import Labelled, folders_by_task
from packnet_tf.apps.device.sessions import sessions_of
from packnet_tf.apps.packs.opening import pixel_range
from packnet_tf.apps.packs.task_images import held_out_images, noted_folder
from packnet_tf.apps.pages.pack_classifier import PackClassifier
from packnet_tf.backend.text import listed
from packnet_tf.export.api import classifying
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
        accuracy: the share of right answers, 0 to 1.
    """

    task: str
    source: str
    images: Labelled
    answers: Answers
    accuracy: float

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
    """Measures tasks on their images, one after the other; prints which tasks are not measured.

    Args:
        net: the pack.
        pack: its file.
        data: folders by task, see `folders_by_task`.
        model: an exported file, or a folder of them, that answers instead of the pack. Tasks that
            `data` does not name are then measured on the folders noted in the pack.

    Raises:
        OSError, ValueError: a folder or a file does not fit; the message says what.
        UsageError: see `folders_by_task`.
    """
    if model is None:
        for task, folder in folders_by_task("--data", data, classifying(net, net.tasks)).items():
            classifier = PackClassifier(net, task, pack)
            yield _measured(classifier, _images(net, classifier, folder))
        return
    files = _classifiers(net, pack, model)
    given = folders_by_task("--data", data, [found.task for found in files])
    for found in files:
        if found.task in given:
            images = _images(net, found, given[found.task])
        else:
            try:
                images = _images(net, found, noted_folder(net.metadata(found.task)))
            except (OSError, ValueError) as error:
                print(f"{found.task} is not measured: {error} Name its images in --data.")
                continue
        yield _measured(found, images)


def _classifiers(net: PackNet, pack: str, model: str) -> list[Classifier]:
    """Opens the exported files that classify.

    Raises:
        NotAClassifierError: the file that is named does not classify.
        ValueError: a file is of another pack, or nothing says which pixel values it takes.
    """
    found = []
    opened = [(path, session) for path in exported_files(model) for session in sessions_of(path)]
    for path, session in opened:
        try:
            found.append(Classifier(path, net.notes.get("pixel_range"), opened=session))
        except NotAClassifierError:
            if len(opened) == 1:
                raise
        except cli.UsageError:  # about --pixel_range, which packnet report has not
            pixel_range(net, pack)
            raise
    for each in found:
        if each.task not in net.tasks:
            what = f"the task '{each.task}', and '{pack}' has {listed(net.tasks)}"
        elif each.classes != net.classes(each.task):
            what = f"other classes of '{each.task}' than '{pack}'"
        else:
            continue
        raise ValueError(f"'{each.path}' has {what}. Name files that were exported from this pack.")
    return found


def _images(net: PackNet, classifier: Classifier | PackClassifier, folder: str) -> Labelled:
    return held_out_images(net, classifier.task, folder, classifier.count)


def _measured(classifier: Classifier | PackClassifier, images: Labelled) -> Measured:
    print(f"Measuring {classifier.task} on {images.folder} ...", flush=True)
    answers, scores = evaluate(classifier, images)
    accuracy = summary(scores)["accuracy"]
    return Measured(classifier.task, classifier.path, images, answers, accuracy)
