"""classify images with exported models, with onnxruntime alone.

Needs onnxruntime, numpy and pillow; TensorFlow is not imported. A folder stands for all images in
it. With several models, each classifies every image; with --router, the one that the folder's
router chooses, or none.

Example:
  packnet predict onnx/model_task3.onnx photo1.jpg photo2.jpg
  packnet predict onnx/ --json photos/ > answers.json
  packnet predict onnx/ --router photos/
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.classifier import (
    Classifier,
    NotAClassifierError,
    chosen_provider,
    define_flags,
)
from packnet_tf.apps.device.counter import counted
from packnet_tf.apps.device.exported_files import exported_files
from packnet_tf.apps.device.router import Router, router_file
from packnet_tf.apps.device.sessions import sessions_of
from packnet_tf.apps.images.listing import images_in
from packnet_tf.backend.text import printable

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("model",)
TAKES_ARGUMENTS = True
flags.DEFINE_multi_string(
    "model",
    None,
    "The .onnx or .ort file of a task or of several, or a folder with a manifest.json for all its "
    "tasks. May be given several times.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "task",
    None,
    "Of a folder or of a file with several tasks, only these, separated by commas.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "top", 3, "How many classes to print per image.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_boolean(
    "router",
    False,
    "Of a folder with a router (packnet export --router), ask it which task each image is for, and "
    "answer by that task alone.",
    flag_values=FLAGS,
)
define_flags(FLAGS)
flags.DEFINE_boolean("json", False, "Print one JSON list.", flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if not arguments:
        raise cli.UsageError("name at least one image file, or a folder of images")
    given = (values.pixel_range, values.image_size, values.task, chosen_provider(values))
    if values.router and len(values.model) > 1:
        raise cli.UsageError("--router chooses among the tasks of one folder; name one model")
    models = [model for path in values.model for model in open_models(path, *given)]
    router = None
    if values.router:
        file = router_file(values.model[0], [model.task for model in models])
        router = Router(file, values.pixel_range, values.image_size, given[-1])
    images = expand(arguments)
    # Predictions that scroll by on a terminal show the progress themselves.
    shown = sys.stderr.isatty() and (values.json or not sys.stdout.isatty())
    entries, failed = [], []
    for image in counted(images, "images", shown):
        entry = classify(image, models, values.top, router)
        if entry["error"] is not None:
            failed.append(entry["error"])
        if values.json:
            entries.append(entry)
        else:
            print("".join(f"{line}\n" for line in lines(entry)), end="", flush=True)
    if values.json:
        print(json.dumps(entries, indent=2))
    if failed:
        raise OSError("; ".join(failed))


def open_models(
    path: str,
    pixel_range: str | None,
    image_size: int,
    tasks: Sequence[str] | None = None,
    provider: str = "cpu",
) -> list[Classifier]:
    """Opens the classifiers of a file, or those of a folder with a manifest.

    Tasks that do not classify are skipped, with a message on stderr, if others do.

    Raises:
        FileNotFoundError: there is no such file, or no manifest in the folder.
        OSError: a file of the folder, of any task, does not match the manifest.
        ValueError: there is no such task.
        NotAClassifierError: the file, or every one in the folder, does not classify.
    """
    models, left_out = [], []
    for file in exported_files(path, tasks):
        for opened in sessions_of(file, provider, tasks):
            try:
                models.append(Classifier(file, pixel_range, image_size, opened=opened))
            except NotAClassifierError as error:
                left_out.append(error)
    if not models:
        raise left_out[0]
    for error in left_out:
        print(f"Left out: {error}", file=sys.stderr)
    return models


def expand(paths: Iterable[str]) -> list[str]:
    """Replaces folders by the images in them; files stay as they are.

    What is skipped of a folder is said on stderr.

    Raises:
        FileNotFoundError: a folder has no images.
        OSError: a folder cannot be read.
    """
    images = []
    for path in paths:
        if not os.path.isdir(path):
            images.append(path)
            continue
        found = images_in(path)
        images += found.files
        for note in found.notes:
            print(note, file=sys.stderr)
    return images


def classify(
    image: str, models: Sequence[Classifier], k: int, router: Router | None = None
) -> dict:
    """Classifies one image with several models, or with the one that a router chooses.

    Args:
        image: an image file; it is decoded once for each input size.
        models: the models.
        k: number of classes to return.
        router: chooses the model by the image's task, or no model; None for all models.

    Returns:
        A dict for JSON: `image`, with a router also `routed` (`task`, the name or None, and
        `scores` by task), `models` (for each `task`, `file`, and `top`, a list of `index`,
        `name` and `probability`), `error` (why the image cannot be read, or None).
    """
    decoded, answers, routed = {}, [], {}
    if router is not None:
        try:
            task, scores = router.task_of(router.load(image))
        except OSError as error:
            return {"image": image, "models": [], "error": str(error)}
        models = [model for model in models if model.task == task]
        routed = {"routed": {"task": task, "scores": scores}}
    for model in models:
        wanted = (model.size, model.channels)
        if wanted not in decoded:
            try:
                decoded[wanted] = model.load(image)
            except OSError as error:
                return {"image": image, "models": [], "error": str(error)}
        (best,) = model.top_of([decoded[wanted]], k)
        top = [
            {
                "index": index,
                "name": None if model.classes is None else model.classes[index],
                "probability": chance,
            }
            for index, chance in best
        ]
        answers.append({"task": model.task, "file": model.path, "top": top})
    return {"image": image, **routed, "models": answers, "error": None}


def lines(entry: dict) -> list[str]:
    """Formats a result of `classify`, a line per model; empty if the image cannot be read.

    The task is named if there are several models or a router, and its file if several have the same
    task.
    """
    answers = entry["models"]
    tasks = [answer["task"] for answer in answers]
    routed, found = "routed" in entry, []
    if routed and entry["routed"]["task"] is None:
        return [printable(f"{entry['image']}: for none of the tasks")]
    for answer in answers:
        who = ""
        if len(tasks) > 1 or routed:
            repeated = tasks.count(answer["task"]) > 1
            who = f" [{answer['task']}, {answer['file']}]" if repeated else f" [{answer['task']}]"
        best = ", ".join(f"{_name(one)} {one['probability']:.1%}" for one in answer["top"])
        found.append(printable(f"{entry['image']}{who}: {best}"))
    return found


def _name(one: dict) -> str:
    return f"class {one['index']}" if one["name"] is None else one["name"]
