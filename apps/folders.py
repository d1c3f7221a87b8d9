"""Folders of images, `DIR/{train,validation,test}/<class>/<image>`: what is in them, checked."""

import concurrent.futures
import dataclasses
import os
import pathlib
import random
from collections.abc import Sequence

from packnet_tf.apps.listing import class_folders, images_in
from packnet_tf.apps.pixels import read_image

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Folder:
    """The image files of one task.

    Attributes:
        classes: names of the classes, sorted; their order is that of the labels.
        files: by split, the pairs (path, label); `validation` is there always, `test` may not be.
        validation_from_train: whether validation was split off the training images.
        unreadable: by path, why an image was left out; see `readable`.
    """

    classes: list[str]
    files: dict[str, list[tuple[str, int]]]
    validation_from_train: bool
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


def shuffled(files: list, seed: int) -> list:
    """The pairs (path, label) in an order that mixes the classes, the same for a seed."""
    return random.Random(seed).sample(files, len(files))


def read_folder(directory, validation_share: float = 0.1, seed: int = 0) -> Folder:
    """Lists a task's images.

    Args:
        directory: folder with `train/<class>/<image>` and, optionally, `validation/` and `test/`.
        validation_share: the share of the training images of every class to validate on where
            there is no `validation/`.
        seed: decides which.

    Raises:
        FileNotFoundError: the folder or its `train/` is missing.
        ValueError: there are no images, a class is empty, or a class is missing in one split.
    """
    root = pathlib.Path(directory)
    layout = "Expected {train,validation,test}/<class>/<image>; validation and test are optional."
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder '{root}'. {layout}")
    if not (root / "train").is_dir():
        raise FileNotFoundError(f"'{root}' has no folder 'train'. {layout}")
    classes = class_folders(root / "train")
    if not classes:
        raise ValueError(f"'{root / 'train'}' has no class folders, so no images. {layout}")
    if len(classes) < 2:
        raise ValueError(f"'{root / 'train'}' has one class only, '{classes[0]}'. {layout}")
    files = {}
    for split in SPLITS:
        if (root / split).is_dir():
            files[split] = _files(root / split, classes)
    split_off = "validation" not in files
    if split_off:
        files["train"], files["validation"] = _split_off(files["train"], validation_share, seed)
    return Folder(classes, files, split_off)


def readable(folder: Folder) -> Folder:
    """The folder without the images that cannot be read, all of them tried.

    Raises:
        ValueError: a class has no readable image left in one split.
    """

    files, unreadable = {}, {}
    for split, pairs in folder.files.items():
        files[split], found = readable_files(pairs)
        unreadable |= found
        left = {label for _, label in files[split]}
        for label, name in enumerate(folder.classes):
            if label not in left:
                raise ValueError(
                    f"No image of class '{name}' in '{split}' can be read: "
                    f"{next(iter(found.values()))}."
                )
    return dataclasses.replace(folder, files=files, unreadable=unreadable)


def readable_files(pairs: Sequence[tuple[str, int]]) -> tuple[list[tuple[str, int]], dict]:
    """Tries image files.

    Args:
        pairs: of a path and a label.

    Returns:
        The pairs whose image can be read, and by path why the others cannot.
    """

    def complaint(path: str) -> str | None:
        try:
            read_image(path, 8, 8, 3)
        except OSError as error:
            return str(error)
        return None

    paths = [path for path, _ in pairs]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        complaints = list(pool.map(complaint, paths))
    unreadable = {path: text for path, text in zip(paths, complaints, strict=True) if text}
    return [pair for pair in pairs if pair[0] not in unreadable], unreadable


def _files(folder: pathlib.Path, classes: list[str]) -> list[tuple[str, int]]:
    present = set(class_folders(folder))
    missing, unknown = set(classes) - present, present - set(classes)
    if missing or unknown:
        what = f"lacks the class '{min(missing)}'" if missing else f"has a class '{min(unknown)}'"
        where = "that 'train' has" if missing else "that 'train' lacks"
        raise ValueError(
            f"'{folder}' {what} {where}. Every split needs the same class folders: "
            f"{', '.join(classes)}."
        )
    files = []
    for label, name in enumerate(classes):
        try:
            files += [(path, label) for path in images_in(folder / name)]
        except FileNotFoundError as error:
            raise ValueError(
                f"{error} Put images there, or remove the class from every split."
            ) from error
    return files


def _split_off(train, share: float, seed: int):
    """Moves a share of every class from train to validation; each keeps one image at least."""
    by_label: dict[int, list] = {}
    for pair in train:
        by_label.setdefault(pair[1], []).append(pair)
    kept, moved = [], []
    for label, pairs in by_label.items():
        if len(pairs) < 2:
            raise ValueError(
                f"The class of '{pairs[0][0]}' has one training image and there is no validation "
                "folder: nothing is left to validate on. Add images."
            )
        count = min(len(pairs) - 1, max(1, round(share * len(pairs))))
        chosen = random.Random(f"{seed}/{label}").sample(pairs, count)
        moved += sorted(chosen)
        kept += sorted(set(pairs) - set(chosen))
    return kept, moved
