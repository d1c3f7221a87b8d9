"""measure the accuracy of an exported model on a folder of images, by onnxruntime alone.

Needs onnxruntime, numpy and pillow; TensorFlow is not imported. The folder is that of a task,
{train,validation,test}/<class>/<image>, or has the class folders in it.

Example:
  packnet evaluate onnx/model_task2.onnx leaves/
"""

import concurrent.futures
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.classifier import Classifier, define_flags
from packnet_tf.apps.device.counter import counted
from packnet_tf.apps.device.labelled import labelled_images
from packnet_tf.reporting.tables import text_table

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("model", "data")
flags.DEFINE_string("model", None, "The .onnx file of a task.", flag_values=FLAGS)
flags.DEFINE_string(
    "data",
    None,
    "Folder of images: DIR/{train,validation,test}/<class>/<image>, or DIR/<class>/<image>.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "split",
    None,
    "Which of the folders in --data; default test where there is one, else validation.",
    flag_values=FLAGS,
)
define_flags(FLAGS)
flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=FLAGS)

BATCH = 32
TOP = 5


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How one class fared.

    Attributes:
        name: of the class.
        images: how many of its images were shown.
        right: how many were put into the right class.
        in_top: how many had the right class among the first five; None where that was not asked.
        taken_for: the wrong class that was answered most often and how often, or None.
    """

    name: str
    images: int
    right: int
    in_top: int | None
    taken_for: tuple[str, int] | None


def score(
    labels: Sequence[int], answers: Sequence[Sequence[int]], classes: Sequence[str], top: bool
) -> list[ClassScore]:
    """Counts per class.

    Args:
        labels: the right class of every image.
        answers: for every image the classes answered, the likeliest first.
        classes: their names.
        top: whether to look for the right class among all the answers too.

    Returns:
        One entry per class that has images, in the order of `classes`.

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
        if wrong:  # the first class of those that are as frequent
            often = min(wrong, key=lambda index: (-wrong[index], index))
            taken_for = (classes[often], wrong[often])
        in_top = sum(label in found for found in mine) if top else None
        scores.append(ClassScore(name, len(mine), len(mine) - wrong.total(), in_top, taken_for))
    return scores


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    model = Classifier(values.model, values.pixel_range, values.image_size)
    images = labelled_images(values.data, values.split, model.classes, model.count)
    for note in images.notes:
        print(note, file=sys.stderr)
    labels, answers, failed = answer(model, images.files)
    if not labels:
        raise OSError(f"No image of '{images.folder}' can be read: {failed[0]}")
    unknown = max(found[0] for found in answers)
    if unknown >= len(images.classes):
        raise ValueError(
            f"'{values.model}' answers with class {unknown}, counted from 0, but "
            f"'{images.folder}' has {len(images.classes)} class folders. The file has no class "
            "names: there must be a folder for every class, sorted as in training."
        )
    top = len(images.classes) > TOP and min(map(len, answers)) >= TOP
    scores = score(labels, answers, images.classes, top)
    facts = {"task": model.task, "file": values.model, "data": str(images.folder)}
    if values.json:
        print(json.dumps({**facts, **as_json(scores), "errors": failed}, indent=2))
    else:
        print(f"Task {model.task}: {values.model} on {images.folder}\n")
        print(as_table(scores))
    if failed:
        raise OSError("; ".join(failed))


def answer(model: Classifier, files: Sequence[tuple[str, int]]):
    """Shows all images to a model, decoding some ahead.

    Args:
        model: the classifier.
        files: pairs (path, label).

    Returns:
        The labels of the images that could be read, for each the first classes answered, and why
        the others could not be read.
    """

    def load(pair):
        try:
            return model.load(pair[0])
        except OSError as error:
            return str(error)

    step = BATCH if model.size is not None else os.cpu_count() or 1  # whole pictures are large
    labels, answers, failed = [], [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for at in counted(range(0, len(files), step), f"batches of {step} images"):
            pairs = files[at : at + step]
            loaded = list(pool.map(load, pairs))
            failed += [text for text in loaded if isinstance(text, str)]
            kept = [
                (image, label)
                for image, (_, label) in zip(loaded, pairs, strict=True)
                if not isinstance(image, str)
            ]
            labels += [label for _, label in kept]
            found = model.top_of([image for image, _ in kept], TOP)
            answers += [[index for index, _ in best] for best in found]
    return labels, answers, failed


def summary(scores: Sequence[ClassScore]) -> dict[str, float | None]:
    """Accuracy over all images, its mean over the classes, and the share within the first five."""
    images = sum(one.images for one in scores)
    in_top = [one.in_top for one in scores]
    return {
        "accuracy": sum(one.right for one in scores) / images,
        "mean_class_accuracy": sum(one.right / one.images for one in scores) / len(scores),
        "top5_accuracy": None if None in in_top else sum(in_top) / images,
    }


def as_json(scores: Sequence[ClassScore]) -> dict:
    """The scores as a dict for JSON; shares are 0 to 1."""
    classes = [
        {
            "name": one.name,
            "images": one.images,
            "accuracy": one.right / one.images,
            "top5_accuracy": None if one.in_top is None else one.in_top / one.images,
            "taken_for": one.taken_for and {"name": one.taken_for[0], "images": one.taken_for[1]},
        }
        for one in scores
    ]
    return {
        "images": sum(one.images for one in scores),
        **summary(scores),
        "classes": classes,
    }


def as_table(scores: Sequence[ClassScore]) -> str:
    """The scores as a table: a row per class, then all images and the mean of the classes."""
    total = summary(scores)
    top = total["top5_accuracy"] is not None
    rows = [
        [
            one.name,
            str(one.images),
            f"{one.right / one.images:.1%}",
            *([f"{one.in_top / one.images:.1%}"] if top else []),
            f"{one.taken_for[0]} ({one.taken_for[1]})" if one.taken_for else "",
        ]
        for one in scores
    ]
    rows += [
        [
            "all images",
            str(sum(one.images for one in scores)),
            f"{total['accuracy']:.1%}",
            *([f"{total['top5_accuracy']:.1%}"] if top else []),
            "",
        ],
        [
            "mean of the classes",
            "",
            f"{total['mean_class_accuracy']:.1%}",
            *([""] if top else []),
            "",
        ],
    ]
    head = ["class", "images", "accuracy", *(["top 5"] if top else []), "mostly taken for"]
    return text_table(head, rows, total=2)
