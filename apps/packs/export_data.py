"""Images for an export: to calibrate int8 ranges, and to measure accuracy."""

import random
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.device import labelled
from packnet_tf.apps.images.folders import read_folder, readable_files
from packnet_tf.apps.images.listing import images_in
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.packs.opening import check_shapes, pixel_range


def calibration_images(net, pack: str, folder: str, count: int) -> np.ndarray:
    """Reads images of a folder as trunk inputs, float32 (n, height, width, channels).

    Args:
        net: the pack.
        pack: its file, for messages.
        folder: folder of images, searched with its subfolders.
        count: number of images, chosen with a fixed seed.
    """
    check_shapes(net.state.trunk, pack)
    files = _chosen([(path, 0) for path in images_in(folder)], count)
    data = _pipeline(net, pack).evaluation(_readable(files))
    return np.concatenate([images for images, _ in data.as_numpy_iterator()])


def labelled_images(net, pack: str, tasks: Sequence[str], given: Sequence[str]) -> dict:
    """Returns the batches (images, labels) of the folders in `--evaluate`, by task.

    Raises:
        ValueError: a folder does not name its task, or names an unknown one.
    """
    check_shapes(net.state.trunk, pack)
    folders = labelled.folders_by_task("--evaluate", given, tasks)
    pipeline = _pipeline(net, pack)
    found = {
        task: labelled.labelled_images(folder, None, net.classes(task), None)
        for task, folder in folders.items()
    }
    for task, images in found.items():
        for note in images.notes:
            print(f"{task}: {note}", flush=True)
    return {task: pipeline.evaluation(_readable(images.files)) for task, images in found.items()}


def noted_images(
    net, pack: str, tasks: Sequence[str], count: int
) -> tuple[dict[str, object], dict[str, object]]:
    """Returns batches of the images that tasks were trained with, from the folders in the pack.

    A task whose folder is not in the pack, is gone or has other classes by now is named in a line.

    Args:
        net: the pack.
        pack: its file, for messages.
        tasks: names of the tasks.
        count: number of training images for calibration, chosen with a fixed seed.

    Returns:
        By task, training images for calibration (None for a task without images); and, for tasks
        with images, its test images with labels, or the validation images if there are none.
    """
    check_shapes(net.state.trunk, pack)
    pipeline = _pipeline(net, pack)
    calibration, evaluate = dict.fromkeys(tasks), {}
    for task in tasks:
        facts, classes = net.metadata(task), net.classes(task)
        try:
            files = _noted_files(facts, classes)
            typical = _readable(_chosen(files["train"], count))
            held_out = _readable(files.get("test", files["validation"]))
        except (OSError, ValueError) as error:
            print(f"{task}: {error} There are no images to calibrate and measure it with.")
            continue
        calibration[task] = pipeline.evaluation(typical)
        evaluate[task] = pipeline.evaluation(held_out)
    return calibration, evaluate


def _noted_files(facts: dict, classes: list[str] | None) -> dict[str, list[tuple[str, int]]]:
    """Returns the images of the folder in a task's metadata, by split, as training split them.

    Raises:
        OSError: there is none, or it is gone.
        ValueError: it has other classes by now.
    """
    if "data" not in facts:
        raise OSError("The pack names no folder of its images.")
    given = {key: facts[key] for key in ("validation_share", "seed") if key in facts}
    folder = read_folder(facts["data"], **given)
    if folder.classes != classes:
        raise ValueError(
            f"'{facts['data']}' has the classes {', '.join(folder.classes)}, and the task "
            f"{', '.join(classes or ['none'])}."
        )
    return folder.files


def _chosen(files: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Returns `count` of the files, or all if there are fewer; the same for the same files."""
    return sorted(random.Random(0).sample(files, min(count, len(files))))


def _readable(files: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Returns the files that can be read; prints those that cannot."""
    kept, unreadable = readable_files(files)
    if not kept:
        raise OSError(f"No image can be read: {next(iter(unreadable.values()))}.")
    for reason in unreadable.values():
        print(f"Skipped: {reason}", flush=True)
    return kept


def _pipeline(net, pack: str) -> Pipeline:
    shape = net.state.trunk.input_shape[1:]
    return Pipeline(shape, 32, 0, cache=False, pixel_range=pixel_range(net, pack))
