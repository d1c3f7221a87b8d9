"""Finds the task of an image with an exported router. Imports neither Keras nor TensorFlow."""

import os
import pathlib
from collections.abc import Sequence

from packnet_tf.apps.device.classifier import ImageModel, NotAClassifierError
from packnet_tf.apps.device.exported_files import check_files
from packnet_tf.apps.device.sessions import open_file
from packnet_tf.export import manifest as manifests
from packnet_tf.export.runtime.session import routed_numbers

REMEDY = "Write one with packnet export PACK DIR --router=router.npz."


class Router(ImageModel):
    """An exported router, which tells which task an image file is for.

    Args:
        path: the `.onnx` file.
        pixel_range, image_size: as for `ImageModel`.
        provider: onnxruntime's execution provider.

    Attributes:
        numbers: the numbers of the tasks that it knows, by name, in the order of the scores.

    Raises:
        FileNotFoundError, ProviderError, ValueError, UsageError: as for `Classifier`.

    Example:
        >>> router = Router("router.onnx")
        >>> router.task_of(router.load("photo.jpg"))
        ('leaves', {'flowers': -3.1, 'leaves': 0.9})
    """

    def __init__(
        self,
        path: str,
        pixel_range: str | None = None,
        image_size: int = 224,
        provider: str = "cpu",
    ):
        opened = open_file(path, provider)
        numbers = routed_numbers(opened.get_modelmeta().custom_metadata_map, path)
        if numbers is None:
            raise NotAClassifierError(f"'{path}' is not a router. {REMEDY}")
        super().__init__(path, opened, pixel_range, image_size)
        self.numbers = numbers

    def task_of(self, image) -> tuple[str | None, dict[str, float]]:
        """Returns the task of an image, None if it is for none of them, and the scores by task.

        Args:
            image: what `load` returned.
        """
        tasks, scores = self.answers([image], ["task", "scores"])
        names = {number: name for name, number in self.numbers.items()}
        own = dict(zip(self.numbers, map(float, scores[0]), strict=True))
        return names.get(int(tasks[0])), own


def router_file(path: str, tasks: Sequence[str]) -> str:
    """Returns the router's file in a folder that packnet export wrote.

    Args:
        path: the folder.
        tasks: names of the tasks that it may name.

    Raises:
        FileNotFoundError: the folder has no router.
        OSError: the file does not match the manifest.
        ValueError: it knows a task that is not among `tasks`.
    """
    folder = pathlib.Path(path)
    entry = manifests.read(folder).get("router") if folder.is_dir() else None
    if entry is None:
        raise FileNotFoundError(f"'{path}' has no router among its exported files. {REMEDY}")
    check_files(folder, [entry, *entry["external"]])
    lacking = sorted(set(entry["tasks"]) - set(tasks))
    if lacking:
        raise ValueError(
            f"The router of '{path}' knows the task '{lacking[0]}', which has no file there that "
            "classifies. Export all tasks, or leave --task out."
        )
    return os.fspath(folder / entry["file"])
