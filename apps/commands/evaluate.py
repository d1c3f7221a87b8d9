"""measure the accuracy of an exported model on a folder of images, with onnxruntime alone.

Needs onnxruntime, numpy and pillow; TensorFlow is not imported. The folder is a task's folder,
{train,validation,test}/<class>/<image>, or holds the class folders itself.

Example:
  packnet evaluate onnx/model_task2.onnx leaves/
  packnet evaluate onnx/model_task2.onnx leaves/ --output=evaluation/
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.classifier import Classifier, chosen_provider, define_flags
from packnet_tf.apps.device.evaluation import ClassScore, evaluate, summary
from packnet_tf.apps.device.evaluation_files import write_evaluation
from packnet_tf.apps.device.exported_files import exported_files
from packnet_tf.apps.device.labelled import labelled_images
from packnet_tf.apps.device.sessions import sessions_of
from packnet_tf.reporting.tables import text_table

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("model", "data")
flags.DEFINE_string(
    "model",
    None,
    "The .onnx file of a task or of several, or a folder.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "task",
    None,
    "Of a folder or of a file with several tasks, the one to measure.",
    flag_values=FLAGS,
)
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
flags.DEFINE_string(
    "output",
    None,
    "Folder for confusion.csv, images.csv (a row per image, with its answer and probability) and "
    "evaluation.json.",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    provider = chosen_provider(values)
    model = _only_model(values.model, values.task, provider, values.pixel_range, values.image_size)
    images = labelled_images(values.data, values.split, model.classes, model.count)
    for note in images.notes:
        print(note, file=sys.stderr)
    answers, scores = evaluate(model, images)
    facts = {"task": model.task, "file": model.path, "data": str(images.folder)}
    facts |= {**as_json(scores), "errors": answers.failed}
    if values.output is not None:
        write_evaluation(values.output, answers.images, images.classes, facts)
    if values.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"Task {model.task}: {model.path} on {images.folder}\n")
        print(as_table(scores))
        if values.output is not None:
            print(f"\nWritten: {values.output}")
    if answers.failed:
        raise OSError("; ".join(answers.failed))


def _only_model(path: str, task: str | None, provider: str, *given: Any) -> Classifier:
    """Opens the one task of a file or folder, or the one that is named."""
    tasks = None if task is None else [task]
    opened = [
        (file, session)
        for file in exported_files(path, tasks)
        for session in sessions_of(file, provider, tasks)
    ]
    if len(opened) > 1:
        facts = [session.get_modelmeta().custom_metadata_map for _, session in opened]
        known = ", ".join(each.get("task", "?") for each in facts)
        raise cli.UsageError(f"'{path}' has the tasks {known}; name one with --task")
    [(file, session)] = opened
    return Classifier(file, *given, opened=session)


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
