"""Lists and checks folders of images, with or without `train`, `validation` and `test`."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import random
from collections.abc import Iterable, Sequence

from packnet_tf.apps.images.listing import LAYOUT, Classes, classes_in, split_folders
from packnet_tf.apps.images.pixels import read_image
from packnet_tf.backend.text import listed


@dataclasses.dataclass(frozen=True)
class Folder:
    """The image files of one task.

    Attributes:
        classes: names of the classes, sorted, by label.
        files: pairs (path, label) by split; `validation` always exists, `test` may not.
        split: if validation was split off the training images, a digest of what is in which part,
            by the files' names; "" otherwise.
        unreadable: by path, why an image was skipped; see `readable`.
        notes: a sentence for everything else that was skipped.
    """

    classes: list[str]
    files: dict[str, list[tuple[str, int]]]
    split: str = ""
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def shuffled(files: list, seed: int) -> list:
    """Returns the pairs (path, label) in a random order, the same for the same seed."""
    return random.Random(seed).sample(files, len(files))


def read_folder(directory, validation_share: float = 0.1, seed: int = 0) -> Folder:
    """Lists a task's images.

    Args:
        directory: folder with `train/<class>/<image>` and, optionally, `validation/` and `test/`
            (variants such as `val` and `Train` are recognized); or a folder of class folders,
            whose images are all for training.
        validation_share: the share of the training images of every class to validate on if
            there is no `validation/`.
        seed: seed of the choice of validation images.

    Raises:
        FileNotFoundError: the folder or its `train/` is missing.
        OSError: a folder cannot be read.
        ValueError: there are no images, or a class is missing in one split; or see `split_folders`.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder '{root}'. {LAYOUT}")
    splits = split_folders(root)
    folders = splits.folders or {"train": root}
    if "train" not in folders:
        said = " ".join([f"'{root}' has no folder 'train'.", LAYOUT, *splits.notes])
        raise FileNotFoundError(said)
    by_split = {split: classes_in(folder) for split, folder in folders.items()}
    notes = splits.notes + [note for found in by_split.values() for note in found.notes]
    classes = [name for name, paths in by_split["train"].files.items() if paths]
    notes += [
        f"Class '{name}' is left out: '{folders['train']}' has no image of it."
        for name, paths in by_split["train"].files.items()
        if not paths
    ]
    if len(classes) < 2:
        raise ValueError(
            f"'{folders['train']}' has {_count(classes)}. {' '.join([LAYOUT, *notes])}"
        )
    files = {}
    for split, found in by_split.items():
        _check_classes(found, classes, notes)
        files[split] = found.pairs(classes)
        notes += found.lacks(classes)
    if "validation" in files:
        return Folder(classes, files, notes=notes)
    files["train"], files["validation"] = _split_off(
        files["train"], classes, validation_share, seed
    )
    return Folder(classes, files, _split_digest(root, files), notes=notes)


def read_folders(
    tasks: Iterable[tuple[str, str]], validation_share: float, seed: int
) -> dict[str, Folder]:
    """Lists the images of several tasks, by name; prints what is skipped.

    Args:
        tasks: pairs of a name and a folder.
        validation_share, seed: as for `read_folder`.
    """
    found = {}
    for name, directory in tasks:
        found[name] = read_folder(directory, validation_share, seed)
        print_notes(name, found[name].notes)
    return found


def print_notes(task: str, notes: Iterable[str]) -> None:
    """Prints what is skipped of a task's images, or may be wrong with them."""
    for note in notes:
        print(f"{task}: {note}", flush=True)


def readable(folder: Folder) -> Folder:
    """Tries all images of a folder; returns it without those that cannot be read.

    Its notes are those of this: a sentence for every class that nothing measures any more.

    Raises:
        ValueError: a class has no readable image left to train on, or a split has none at all.
    """

    files, unreadable, notes = {}, {}, list[str]()
    for split, pairs in folder.files.items():
        files[split], found = readable_files(pairs)
        unreadable |= found
        lost = {label for _, label in pairs} - {label for _, label in files[split]}
        for label in sorted(lost):
            said = (
                f"No image of class '{folder.classes[label]}' in '{split}' can be read: "
                f"{next(found[path] for path, other in pairs if other == label)}."
            )
            if split == "train" or not files[split]:
                raise ValueError(f"{said} Replace these images, or remove the class.")
            notes.append(f"{said} Nothing measures it there.")
    return dataclasses.replace(folder, files=files, unreadable=unreadable, notes=notes)


def readable_files(pairs: Sequence[tuple[str, int]]) -> tuple[list[tuple[str, int]], dict]:
    """Tries to read image files.

    Args:
        pairs: pairs (path, label).

    Returns:
        The pairs whose image can be read, and by path the reason why the others cannot.
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


def _count(classes: list[str]) -> str:
    return f"images of one class only, '{classes[0]}'" if classes else "no images in class folders"


def _check_classes(found: Classes, classes: list[str], notes: list[str]) -> None:
    present = {name for name, paths in found.files.items() if paths}
    missing, unknown = set(classes) - set(found.files), present - set(classes)
    if missing or unknown:
        what = f"lacks the class '{min(missing)}'" if missing else f"has a class '{min(unknown)}'"
        where = "that 'train' has" if missing else "that 'train' lacks"
        raise ValueError(
            f"'{found.folder}' {what} {where}. Every split needs the same class folders: "
            f"{' '.join([f'{listed(classes)}.', *notes])}"
        )
    if not present:
        raise ValueError(f"'{found.folder}' has no images. {' '.join([LAYOUT, *found.notes])}")


def _split_digest(root: pathlib.Path, files: dict[str, list[tuple[str, int]]]) -> str:
    """Returns a digest of which files are for training and which for validation."""
    lines = [
        f"{split}/{pathlib.Path(path).relative_to(root).as_posix()}"
        for split in ("train", "validation")
        for path, _ in files[split]
    ]
    text = "\0".join(sorted(lines))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def content_digest(folder: Folder, root, splits: Iterable[str] | None = None) -> str:
    """Returns a digest of a task's files: of their names, classes and sizes, without reading them.

    Args:
        folder: the files.
        root: the folder that contains them.
        splits: the splits whose files count; default: all.
    """
    found = hashlib.sha256()
    for split in sorted(folder.files if splits is None else splits):
        for path, label in sorted(folder.files[split]):
            name = os.path.relpath(path, root)
            found.update(os.fsencode(f"{split}/{label}/{name}/{_size(path)}\n"))
    return found.hexdigest()


def _size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:  # a link that leads nowhere, which is skipped when it is read
        return None


def _split_off(train, classes: list[str], share: float, seed: int):
    """Splits a share of every class off for validation; both parts get at least one image."""
    by_label: dict[int, list] = {}
    for pair in train:
        by_label.setdefault(pair[1], []).append(pair)
    alone = [classes[label] for label, pairs in by_label.items() if len(pairs) < 2]
    if alone:
        raise ValueError(
            f"There is no folder 'validation', and one training image of {listed(alone)}: nothing "
            "would be left to validate on. Add images, or remove what has too few."
        )
    kept, moved = [], []
    for label, pairs in by_label.items():
        count = min(len(pairs) - 1, max(1, round(share * len(pairs))))
        chosen = random.Random(f"{seed}/{label}").sample(pairs, count)
        moved += sorted(chosen)
        kept += sorted(set(pairs) - set(chosen))
    return kept, moved
