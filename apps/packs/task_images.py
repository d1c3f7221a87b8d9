"""Images for the tasks of a pack: to calibrate int8 ranges, and to measure accuracy."""

import os
import pathlib
import random
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.device.labelled import Labelled, folders_by_task, labelled_images
from packnet_tf.apps.images.folders import Folder, print_notes, read_folder, readable_files
from packnet_tf.apps.images.listing import images_in, split_folders
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.packs.opening import check_shapes, pixel_range
from packnet_tf.backend.text import listed
from packnet_tf.export.api import classifying
from packnet_tf.net import PackNet
from packnet_tf.routing.router import TaskRouter

MOST_ROUTED = 5_000  # most training images of a task for a router


def calibration_images(net, pack: str, folder: str, count: int) -> np.ndarray:
    """Reads images of a folder as trunk inputs, float32 (n, height, width, channels).

    Args:
        net: the pack.
        pack: its file, for messages.
        folder: folder of images, searched with its subfolders.
        count: number of images, chosen with a fixed seed.
    """
    pipeline = _pipeline(net, pack)
    images = images_in(folder)
    for note in images.notes:
        print(note, flush=True)
    files = _chosen([(path, 0) for path in images.files], count)
    data = pipeline.evaluation(_readable(files))
    return np.concatenate([images for images, _ in data.as_numpy_iterator()])


def labelled_batches(net, pack: str, tasks: Sequence[str], given: Sequence[str]) -> dict:
    """Returns the batches (images, labels) of the folders in `--evaluate`, by task.

    Raises:
        UsageError: see `folders_by_task`.
    """
    folders = folders_by_task("--evaluate", given, classifying(net, tasks))
    pipeline = _pipeline(net, pack)
    found = {task: held_out_images(net, task, folder) for task, folder in folders.items()}
    for task, images in found.items():
        print_notes(task, images.notes)
    return {task: pipeline.evaluation(_readable(images.files)) for task, images in found.items()}


def noted_images(
    net, pack: str, tasks: Sequence[str], count: int | None
) -> tuple[dict[str, object], dict[str, object]]:
    """Returns batches of the images that tasks were trained with, from the folders in the pack.

    A task whose folder is not in the pack, is gone or has other classes by now is named in a line.

    Args:
        net: the pack.
        pack: its file, for messages.
        tasks: names of the tasks.
        count: number of training images for calibration, chosen with a fixed seed; None: none.

    Returns:
        By task, training images for calibration (None for a task without images); and, for tasks
        with images, its test images with labels, or the validation images if there are none and
        it is known which these are.
    """
    pipeline = _pipeline(net, pack)
    calibration, evaluate = dict.fromkeys(tasks), {}
    use = "measure it with" if count is None else "calibrate and measure it with"
    for task in tasks:
        facts, classes = net.metadata(task), net.classes(task)
        try:
            folder = noted_images_of(facts, classes)
            print_notes(task, folder.notes)
            if count is not None:
                typical = _readable(_chosen(folder.files["train"], count))
                calibration[task] = pipeline.evaluation(typical)
        except (OSError, ValueError) as error:
            print(f"{task}: {error} There are no images to {use}.")
            continue
        try:
            held_out = folder.files.get("test") or _held_out(facts, folder)
            evaluate[task] = pipeline.evaluation(_readable(held_out))
        except (OSError, ValueError) as error:
            print(f"{task}: {error} Its files are not measured on images.")
    return calibration, evaluate


def updated_router(net: PackNet, pack: str, path: str) -> TaskRouter:
    """Reads a router or makes a new one, adds the tasks that it lacks, and saves it.

    They are added from the folders that they were trained with, which the pack names. A task whose
    folder is gone or has other classes by now is named in a line, and the router does not know it.

    Args:
        net: the pack.
        pack: its file, for messages.
        path: the router's file.

    Raises:
        FileNotFoundError, ValueError: as for `TaskRouter.load`.
    """
    router = TaskRouter.load(path, net) if os.path.exists(path) else TaskRouter(net)
    pipeline = _pipeline(net, pack)
    for task in classifying(net, net.tasks):
        if task in router.tasks:
            continue
        try:
            folder = noted_images_of(net.metadata(task), net.classes(task))
            print(f"Adding {task} to the router ...", flush=True)
            print_notes(task, folder.notes)
            train, held_out = (
                pipeline.evaluation(_readable(_chosen(folder.files[split], MOST_ROUTED)))
                for split in ("train", "validation")
            )
            router.add(task, train, held_out)
        except (OSError, ValueError) as error:
            print(f"{task}: {error} The router does not know it.", flush=True)
    router.save(path)
    return router


def noted_folder(facts: dict) -> str:
    """Returns the folder of images that a task was trained with.

    Args:
        facts: the task's metadata, see `PackNet.metadata`.

    Raises:
        OSError: the pack does not name it.
    """
    folder = facts.get("data")
    if not isinstance(folder, str):  # in Python one may note what one likes
        raise OSError("The pack names no folder of its images.")
    return folder


def noted_images_of(facts: dict, classes: list[str] | None) -> Folder:
    """Lists the images of the folder that a task was trained with, split as training splits them.

    Args:
        facts: the task's metadata, see `PackNet.metadata`.
        classes: names of the task's classes.

    Raises:
        OSError: the pack does not name their folder, or it is gone.
        ValueError: it has other classes by now.
    """
    directory = noted_folder(facts)
    given = {key: facts[key] for key in ("validation_share", "seed") if key in facts}
    folder = read_folder(directory, **given)
    if folder.classes != classes:
        raise ValueError(
            f"'{directory}' has the classes {listed(folder.classes)}, and the task "
            f"{listed(classes or ['none'])}."
        )
    return folder


def _held_out(facts: dict, folder: Folder) -> list[tuple[str, int]]:
    """Returns the validation images of a task's own folder.

    Raises:
        ValueError: training split them off, from other images than those there by now.
    """
    if folder.split != facts.get("split", folder.split):
        raise ValueError(
            f"'{facts['data']}' has other images than at the training, so which of them the task "
            "has not seen is not known. Name a folder of images that are new to it."
        )
    return folder.files["validation"]


def held_out_images(net: PackNet, task: str, folder: str, count: int | None = None) -> Labelled:
    """Lists the labelled images of a folder, as `labelled_images` does, to measure a task on them.

    If the folder has neither test nor validation images and is the one that the task was trained
    with, the images are those that training held out: the task knows the others.

    Args:
        net: the pack.
        task: the task's name.
        folder: the folder.
        count: as for `labelled_images`.

    Raises:
        OSError, ValueError: see `labelled_images` and `noted_images_of`; ValueError also if the
            folder has changed, so that it is not known what was held out.
    """
    if not _trained_with(net, task, folder) or _has_held_out(pathlib.Path(folder)):
        return labelled_images(folder, None, net.classes(task), count)
    facts = net.metadata(task)
    found = noted_images_of(facts, net.classes(task))
    files = _held_out(facts, found)
    note = (
        f"'{folder}' has no folder 'test' or 'validation', and '{task}' was trained with it: only "
        f"the images that training held out count, {len(files)}."
    )
    return Labelled(pathlib.Path(folder), net.classes(task) or [], files, [note, *found.notes])


def _trained_with(net: PackNet, task: str, folder: str) -> bool:
    noted = net.metadata(task).get("data")
    found = isinstance(noted, str) and os.path.isdir(folder) and os.path.isdir(noted)
    return found and os.path.samefile(folder, noted)


def _has_held_out(folder: pathlib.Path) -> bool:
    return not {"test", "validation"}.isdisjoint(split_folders(folder).folders)


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
    check_shapes(net.state.trunk, pack)
    shape = net.state.trunk.input_shape[1:]
    return Pipeline(shape, 32, 0, cache=False, pixel_range=pixel_range(net, pack))
