"""Images for an export: to calibrate int8 ranges, and to measure accuracy."""

import random
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.device import labelled
from packnet_tf.apps.images.folders import readable_files
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
    files = images_in(folder)
    files = sorted(random.Random(0).sample(files, min(count, len(files))))
    data = _pipeline(net, pack).evaluation(_readable([(path, 0) for path in files]))
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
