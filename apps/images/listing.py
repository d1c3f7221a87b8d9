"""Lists folders of images, in the same way in training and on the device.

Links are followed. Hidden files and the remains of archivers are ignored. Everything else that is
skipped is reported.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import unicodedata
from collections.abc import Sequence

from packnet_tf.apps import cli

LAYOUT = "Expected DIR/{train,validation,test}/<class>/<image>, or DIR/<class>/<image>."
SPLITS = {  # with the accepted names of their folders
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
LEFT_BY_ARCHIVES = "__MACOSX"
KNOWN_BUT_NOT_DECODED = ("EPS", "MPEG")  # videos, and a format that needs another program
MOST_SUFFIXES = 5  # to name for skipped files


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


@functools.cache
def suffixes() -> frozenset[str]:
    """Returns the suffixes of files that Pillow decodes, in lower case with their dot."""
    cli.need("PIL", "pillow")
    from PIL import Image, ImageFile

    def decodes(kind: str) -> bool:
        # MPO (several images in one JPEG file) has no entry: Pillow's JPEG reader opens it.
        opener = Image.OPEN.get("JPEG" if kind == "MPO" else kind, (None,))[0]
        stub = isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
        return opener is not None and not stub and kind not in KNOWN_BUT_NOT_DECODED

    return frozenset(s for s, kind in Image.registered_extensions().items() if decodes(kind))


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC); macOS may write the decomposed form."""
    return unicodedata.normalize("NFC", name)


@dataclasses.dataclass(frozen=True)
class Splits:
    """The folders of a task's splits.

    Attributes:
        folders: by `train`, `validation` and `test`; missing splits have no entry.
        notes: a sentence for every other folder, which is skipped.
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
        ValueError: two folders are the same split, or there are several splits without classes.
    """
    found: dict[str, pathlib.Path] = {}
    flat, others = [], []
    for folder in map(root.joinpath, _folders(root)):
        split = split_named(folder)
        if split is None:
            others.append(folder)
        elif not _folders(folder):
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
    notes = [f"'{folder}' has no class folders, and is left out." for folder in flat]
    notes += [f"'{folder}' is no split, and is left out." for folder in others]
    notes += _beside(root, "split")
    folders = {split: found[split] for split in SPLITS if split in found}
    return Splits(folders, notes if folders else [])


def classes_in(folder) -> Classes:
    """Lists the images of the class folders in a folder."""
    folder = pathlib.Path(folder)
    files: dict[str, list[str]] = {}
    left: collections.Counter[str] = collections.Counter()
    notes = _beside(folder, "class folder")
    for name in _folders(folder):
        if name == LEFT_BY_ARCHIVES:
            notes.append(f"'{folder / name}' is left out: an archiver put it there.")
            continue
        found, others = _walk(folder / name)
        files[composed(name)] = _sorted(files.get(composed(name), []) + found)
        left += others
    if left:
        ordered = sorted(left.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_SUFFIXES]
        kinds = [f"{suffix or 'no suffix'} ({n})" for suffix, n in ordered]
        more = ", ..." if len(left) > MOST_SUFFIXES else ""
        count = left.total()
        notes.append(
            f"{count} {'file' if count == 1 else 'files'} in '{folder}' left out, of kinds that "
            f"Pillow does not decode: {', '.join(kinds)}{more}."
        )
    return Classes(folder, dict(sorted(files.items())), notes)


def images_in(folder) -> list[str]:
    """Lists the image files of a folder and its subfolders, sorted by path.

    Images are recognized by their suffix. Hidden files and folders are skipped.

    Raises:
        FileNotFoundError: there is none.
    """
    found, others = _walk(folder)
    if not found:
        seen = f"; it has files of the kinds {', '.join(sorted(others))}" if others else ""
        raise FileNotFoundError(
            f"There are no images in '{folder}'{seen}. Expected files that Pillow decodes, .jpg or "
            ".png for instance."
        )
    return found


def _beside(folder: pathlib.Path, what: str) -> list[str]:
    """Returns a sentence if a folder of folders has images of its own."""
    images = [entry for entry in folder.iterdir() if entry.suffix.lower() in suffixes()]
    count = sum(entry.is_file() and entry.name[0] != "." for entry in images)
    are = "image is" if count == 1 else "images are"
    return [f"{count} {are} in '{folder}' itself, in no {what}, and left out."] if count else []


def _folders(folder: pathlib.Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(e.name for e in folder.iterdir() if e.is_dir() and e.name[0] != ".")


def _walk(folder) -> tuple[list[str], collections.Counter]:
    """Returns the image files, sorted, and the number of other files by suffix."""
    found, others = [], collections.Counter()
    # Links may form cycles, and one to a folder above would lead to the images of other classes.
    here = pathlib.Path(os.path.realpath(folder))
    been = {str(above) for above in (here, *here.parents)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in folders:
            real = os.path.realpath(os.path.join(parent, name))
            if name[0] != "." and name != LEFT_BY_ARCHIVES and real not in been:
                been.add(real)
                kept.append(name)
        folders[:] = kept
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name[0] == ".":
                continue
            if suffix in suffixes():
                found.append(os.path.join(parent, name))
            else:
                others[suffix] += 1
    return _sorted(found), others


def _sorted(paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: path.split(os.sep))
