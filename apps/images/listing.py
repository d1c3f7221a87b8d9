"""Lists folders of images, in the same way in training and on the device.

Links are followed. Hidden files and folders are ignored. Everything else that is skipped is
reported. That the folder of a split or of a class cannot be read is an error.
"""

import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import Sequence

from packnet_tf.apps.images.entries import Entries, Left, entries_of, in_order, is_image, walk
from packnet_tf.backend.text import listed

LAYOUT = "Expected DIR/{train,validation,test}/<class>/<image>, or DIR/<class>/<image>."
SPLITS = {  # with the accepted names of their folders
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
# What a folder's name has in it if the folder is a split under another name, `seg_train` for one.
LIKE_A_SPLIT = re.compile(
    "(^|[^a-z])(train(ing)?|test(ing)?|val|valid(ation)?|dev)([^a-z]|$)", re.IGNORECASE
)
BRING_BACK = "Bring back what it leads to, or remove the link."
DEEPEST = 3  # folders with nothing but one folder in them, within each other


@dataclasses.dataclass(frozen=True)
class Classes:
    """The images of a folder, class by class.

    Attributes:
        folder: the folder.
        files: image files by class name (sorted, in Unicode's composed form); may be empty.
        notes: a sentence for everything that was skipped.
    """

    folder: pathlib.Path
    files: dict[str, list[str]]
    notes: list[str]

    def pairs(self, names: Sequence[str]) -> list[tuple[str, int]]:
        """Returns the images of these classes as pairs (path, position of the class)."""
        return [(path, place) for place, n in enumerate(names) for path in self.files[composed(n)]]

    def lacks(self, names: Sequence[str]) -> list[str]:
        """Returns a sentence for each of these classes that has no image."""
        empty = [name for name in names if not self.files[composed(name)]]
        return [f"'{self.folder}' has no image of class '{name}'." for name in empty]


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC); macOS may write the decomposed form."""
    return unicodedata.normalize("NFC", name)


@dataclasses.dataclass(frozen=True)
class Splits:
    """The folders of a task's splits.

    Attributes:
        folders: by `train`, `validation` and `test`; missing splits have no entry.
        notes: a sentence for everything else, which is skipped; without splits, for what may be
            wrong.
    """

    folders: dict[str, pathlib.Path]
    notes: list[str]


def split_named(folder: pathlib.Path) -> str | None:
    """Returns the split whose name a folder has, in upper or lower case; None if it has none."""
    return next((split for split, names in SPLITS.items() if folder.name.lower() in names), None)


def split_folders(root: pathlib.Path) -> Splits:
    """Finds the folders of a task's splits.

    A folder is a split if it has the name of one, in upper or lower case, and contains folders: a
    class may be called `train` too.

    Raises:
        OSError: a folder cannot be read.
        ValueError: two folders are the same split, there are several splits without classes, a
            split is a link that leads nowhere, or the splits have other names.
    """
    found: dict[str, pathlib.Path] = {}
    flat, others = [], []
    inside = entries_of(root)
    for name, said in inside.nowhere.items():
        if split_named(root / name) is not None:
            raise ValueError(
                f"{said} By its name it is the '{split_named(root / name)}' of '{root}'. "
                f"{BRING_BACK}"
            )
    for folder in map(root.joinpath, inside.folders):
        split = split_named(folder)
        if split is None:
            others.append(folder)
        elif not entries_of(folder).folders:
            flat.append(folder)
        elif split in found:
            raise ValueError(
                f"'{found[split]}' and '{folder}' are both the '{split}' of '{root}'. Leave one of "
                "them."
            )
        else:
            found[split] = folder
    if len(flat) > 1 and not found and not others:
        raise ValueError(
            f"'{flat[0]}' and '{flat[1]}' have no class folders, so nothing says what is on their "
            f"images. {LAYOUT}"
        )
    if not found:
        return Splits({}, _too_high(root, inside.folders))
    notes = [f"'{folder}' has no class folders, and is left out." for folder in flat]
    notes += [f"'{folder}' is no split, and is left out." for folder in others]
    left = Left(root)
    left.beside(inside, "split")
    return Splits({split: found[split] for split in SPLITS if split in found}, notes + left.notes())


def _too_high(root: pathlib.Path, names: Sequence[str]) -> list[str]:
    """Returns a sentence if a folder may be one level above the one that was meant.

    Then its folders have no images of their own, and all have the same folders, the classes. So may
    classes whose images are sorted further, by year for instance.

    Raises:
        ValueError: the names say that it is.
    """
    if len(names) < 2:
        return []
    found = []
    for name in names:
        folder, below = _first_choice(root / name)
        first = found[0][1] if found else below.folders
        if below.images or len(below.folders) < 2 or below.folders != first:
            return []
        found.append((folder, below.folders))
    (one, inner), called_splits = found[-1], all(LIKE_A_SPLIT.search(name) for name in names)
    has_splits = all(split_named(one / name) for name in inner)
    said = (
        f"'{root}' {'is' if called_splits or has_splits else 'may be'} one level too high: its "
        f"folders {listed(names)} have no images of their own, and each has the folders "
        f"{listed(inner)}."
    )
    if has_splits:
        raise ValueError(
            f"{said} If they are tasks, write one of them, '{one}' for instance, in place of "
            f"'{root}'. {LAYOUT}"
        )
    if called_splits:
        raise ValueError(
            f"{said} Call the folders train, validation and test, or write one of them, '{one}' "
            f"for instance, in place of '{root}'."
        )
    return [f"{said} If these are the classes, write '{one}' in place of '{root}'."]


def _first_choice(folder: pathlib.Path) -> tuple[pathlib.Path, Entries]:
    """Goes down as long as there is nothing but one folder, which unpacking often adds."""
    inside = entries_of(folder)
    for _ in range(DEEPEST):
        if inside.images or len(inside.folders) != 1:
            break
        folder = folder / inside.folders[0]
        inside = entries_of(folder)
    return folder, inside


def classes_in(folder) -> Classes:
    """Lists the images of the class folders in a folder.

    Raises:
        OSError: the folder, or a class folder, cannot be read.
        ValueError: a class folder is a link that leads nowhere.
    """
    folder = pathlib.Path(folder)
    files: dict[str, list[str]] = {}
    left, inside = Left(folder), entries_of(folder)
    for name, said in inside.nowhere.items():
        if not is_image(name):
            raise ValueError(f"{said} By its place it is a class of '{folder}'. {BRING_BACK}")
    left.beside(inside, "class folder")
    for name in inside.folders:
        files[composed(name)] = in_order(files.get(composed(name), []) + walk(folder / name, left))
    return Classes(folder, dict(sorted(files.items())), left.notes())


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a folder and its subfolders.

    Attributes:
        files: image files, sorted by path.
        notes: a sentence for everything that was skipped.
    """

    files: list[str]
    notes: list[str]


def images_in(folder) -> Images:
    """Lists the image files of a folder and its subfolders.

    Images are recognized by their suffix. Hidden files and folders are skipped.

    Raises:
        FileNotFoundError: there is none, or no folder.
        OSError: the folder cannot be read.
    """
    if not pathlib.Path(folder).is_dir():
        raise FileNotFoundError(f"There are no images in '{folder}': there is no such folder.")
    left = Left(folder)
    found = walk(folder, left)
    if not found:
        raise FileNotFoundError(
            " ".join(
                [
                    f"There are no images in '{folder}'. Expected files that Pillow decodes, .jpg "
                    "or .png for instance.",
                    *left.notes(),
                ]
            )
        )
    return Images(found, left.notes())
