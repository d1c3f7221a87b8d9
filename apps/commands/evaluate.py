"""measure the accuracy of an exported model on a folder of images, with onnxruntime alone.

Needs onnxruntime, numpy and pillow; TensorFlow is not imported. The folder is a task's folder,
{train,validation,test}/<class>/<image>, or holds the class folders itself.

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
    "Which split of --data to use; default test, or validation if there is no test.",
    flag_values=FLAGS,
)
define_flags(FLAGS)
flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=FLAGS)

BATCH = 32
TOP = 5


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
    """Classifies images, decoding some ahead.

    Args:
        model: the classifier.
        files: pairs (path, label).

    Returns:
        The labels of the images that could be read, their most probable classes, and for each
        other image the reason why it could not be read.
    """

    def load(pair):
        try:
            return model.load(pair[0])
        except OSError as error:
            return str(error)

    step = BATCH if model.size is not None else os.cpu_count() or 1  # unresized images are large
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
    """Returns the accuracy over all images, its mean over classes, and the top-5 accuracy."""
    images = sum(one.images for one in scores)
    in_top = [one.in_top for one in scores]
    return {
        "accuracy": sum(one.right for one in scores) / images,
        "mean_class_accuracy": sum(one.right / one.images for one in scores) / len(scores),
        "top5_accuracy": None if None in in_top else sum(in_top) / images,
    }


def as_json(scores: Sequence[ClassScore]) -> dict:
    """Returns the scores as a dict for JSON; accuracies are 0 to 1."""
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
    """Lays out the scores as a table: a row per class, one for all images, one for the mean."""
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
