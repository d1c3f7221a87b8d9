"""Classifies labelled images with an exported file, and counts what is right."""

import concurrent.futures
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.device.classifier import Classifier
from packnet_tf.apps.device.counter import counted
from packnet_tf.apps.device.labelled import Labelled

BATCH = 32
TOP = 5


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to one image.

    Attributes:
        path: the image file.
        label: its right class.
        classes: the predicted classes, the most probable first.
        probabilities: their probabilities, 0 to 1.
    """

    path: str
    label: int
    classes: list[int]
    probabilities: list[float]


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers to all images.

    Attributes:
        images: an `Answer` per image that could be read, in the order given.
        failed: for each other image, the reason why it could not be read.
    """

    images: list[Answer]
    failed: list[str]


def answer(model: Classifier, files: Sequence[tuple[str, int]]) -> Answers:
    """Classifies images, decoding some ahead.

    Args:
        model: the classifier.
        files: pairs (path, label).
    """

    def load(pair):
        try:
            return model.load(pair[0])
        except OSError as error:
            return str(error)

    step = BATCH if model.size is not None else os.cpu_count() or 1  # unresized images are large
    answers = Answers([], [])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for at in counted(range(0, len(files), step), f"batches of {step} images"):
            pairs = files[at : at + step]
            loaded = list(pool.map(load, pairs))
            answers.failed.extend(text for text in loaded if isinstance(text, str))
            kept = [
                (image, *pair)
                for image, pair in zip(loaded, pairs, strict=True)
                if not isinstance(image, str)
            ]
            found = model.top_of([image for image, _, _ in kept], TOP)
            for (_, path, label), best in zip(kept, found, strict=True):
                classes, chances = ([one[place] for one in best] for place in (0, 1))
                answers.images.append(Answer(path, label, classes, chances))
    return answers


def confusion_matrix(answers: Sequence[Answer], count: int) -> np.ndarray:
    """Counts images by right class (rows) and answered class (columns).

    Args:
        answers: the answers to the images.
        count: number of classes.

    Example:
        >>> confusion_matrix([Answer("a.jpg", 0, [1, 0], [0.9, 0.1])], 2).tolist()
        [[0, 1], [0, 0]]
    """
    matrix = np.zeros((count, count), np.int64)
    for one in answers:
        matrix[one.label, one.classes[0]] += 1
    return matrix


def evaluate(model: Classifier, images: Labelled) -> tuple[Answers, list["ClassScore"]]:
    """Classifies the images of a folder, and counts right and wrong predictions per class.

    Args:
        model: the classifier.
        images: the images.

    Returns:
        The answers, and a `ClassScore` per class that has images.

    Raises:
        OSError: no image can be read.
        ValueError: the file answers with more classes than there are folders.
    """
    answers = answer(model, images.files)
    if not answers.images:
        raise OSError(f"No image of '{images.folder}' can be read: {answers.failed[0]}")
    predicted = [one.classes for one in answers.images]
    unknown = max(found[0] for found in predicted)
    if unknown >= len(images.classes):
        raise ValueError(
            f"'{model.path}' answers with class {unknown}, counted from 0, but "
            f"'{images.folder}' has {len(images.classes)} class folders. The file has no class "
            "names: there must be a folder for every class, sorted as in training."
        )
    top = len(images.classes) > TOP and min(map(len, predicted)) >= TOP
    labels = [one.label for one in answers.images]
    return answers, score(labels, predicted, images.classes, top)


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """The results of one class.

    Attributes:
        name: name of the class.
        images: number of its images.
        right: number of its images that were classified correctly.
        in_top: number of its images with the right class among the top five; None if not counted.
        taken_for: the most frequent wrong prediction and its count, or None.
    """

    name: str
    images: int
    right: int
    in_top: int | None
    taken_for: tuple[str, int] | None


def score(
    labels: Sequence[int], answers: Sequence[Sequence[int]], classes: Sequence[str], top: bool
) -> list[ClassScore]:
    """Counts right and wrong predictions per class.

    Args:
        labels: the right class of every image.
        answers: the predicted classes of every image, the most probable first.
        classes: names of the classes.
        top: whether to count the right class among all predicted ones too.

    Returns:
        A `ClassScore` per class that has images, in the order of `classes`.

    Example:
        >>> score([0, 0, 1], [[0], [1], [1]], ["cat", "dog"], top=False)[0]
        ClassScore(name='cat', images=2, right=1, in_top=None, taken_for=('dog', 1))
    """
    scores = []
    for label, name in enumerate(classes):
        mine = [found for right, found in zip(labels, answers, strict=True) if right == label]
        if not mine:
            continue
        wrong = Counter(found[0] for found in mine if found[0] != label)
        taken_for = None
        if wrong:  # the first of equally frequent classes
            often = min(wrong, key=lambda index: (-wrong[index], index))
            taken_for = (classes[often], wrong[often])
        in_top = sum(label in found for found in mine) if top else None
        scores.append(ClassScore(name, len(mine), len(mine) - wrong.total(), in_top, taken_for))
    return scores


def summary(scores: Sequence[ClassScore]) -> dict[str, float | None]:
    """Returns the accuracy over all images, its mean over classes, and the top-5 accuracy."""
    images = sum(one.images for one in scores)
    in_top = [one.in_top for one in scores]
    return {
        "accuracy": sum(one.right for one in scores) / images,
        "mean_class_accuracy": sum(one.right / one.images for one in scores) / len(scores),
        "top5_accuracy": None if None in in_top else sum(in_top) / images,
    }
