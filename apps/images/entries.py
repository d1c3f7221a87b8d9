"""Looks into folders for images, and says what is left out.

A link that leads nowhere and a folder that cannot be read may hide thousands of images: training
without them would look like training with them.
"""

import collections
import dataclasses
import functools
import os
import pathlib

from packnet_tf.apps import cli

KNOWN_BUT_NOT_DECODED = ("EPS", "MPEG")  # videos, and a format that needs another program
MOST_SUFFIXES = 5  # to name for skipped files
# Folders that no user made, in lower case, with what makes them.
MADE_BY_OTHERS = {
    "__macosx": "an archiver put it there",
    "@eadir": "a Synology NAS keeps small copies of pictures there",
    "#recycle": "a NAS keeps deleted files there",
    "@recycle": "a NAS keeps deleted files there",
    "#snapshot": "a NAS keeps earlier files there",
    "@recently-snapshot": "a NAS keeps earlier files there",
    "$recycle.bin": "Windows keeps deleted files there",
    "system volume information": "Windows put it there",
    "lost+found": "the file system put it there",
}


class Left:
    """Collects what is left out of a folder.

    Args:
        folder: the folder, for messages.
    """

    def __init__(self, folder) -> None:
        self.folder = folder
        self._sentences: list[str] = []
        self._foreign: dict[str, list[str]] = {}
        self._suffixes: collections.Counter[str] = collections.Counter()

    def beside(self, inside: "Entries", what: str) -> None:
        """Adds what is beside the folders in a folder of folders, its images for instance.

        Args:
            inside: what is in the folder.
            what: what the folders in it are.
        """
        count = len(set(inside.images) - set(inside.nowhere))
        are = "image is" if count == 1 else "images are"
        if count:
            self._sentences.append(
                f"{count} {are} in '{inside.folder}' itself, in no {what}, and left out."
            )
        self._sentences += [f"{said} It is left out." for said in inside.nowhere.values()]
        self._add_foreign(inside)

    def within(self, inside: "Entries") -> None:
        """Adds what is no image in a folder of images.

        Args:
            inside: what is in the folder.
        """
        broken = [said for name, said in inside.nowhere.items() if not is_image(name)]
        self._sentences += [f"{said} It is left out." for said in broken]
        self._add_foreign(inside)
        others = (name for name in inside.files if not is_image(name))
        self._suffixes.update(_suffix(name) for name in others)

    def unread(self, error: OSError) -> None:
        """Adds a folder of images that cannot be read.

        Args:
            error: what `entries_of` raised.
        """
        self._sentences.append(f"{error} Its images are left out.")

    def _add_foreign(self, inside: "Entries") -> None:
        for name in inside.foreign:
            self._foreign.setdefault(name, []).append(os.path.join(inside.folder, name))

    def notes(self) -> list[str]:
        """Returns a sentence for everything that was added."""
        found = sorted(self._sentences)
        for name, paths in sorted(self._foreign.items()):
            what = f"'{paths[0]}' is"
            if len(paths) > 1:
                what = f"{len(paths):,} folders '{name}' in '{self.folder}' are"
            found.append(f"{what} left out: {MADE_BY_OTHERS[name.lower()]}.")
        if self._suffixes:
            found.append(self._of_other_kinds())
        return found

    def _of_other_kinds(self) -> str:
        ordered = sorted(self._suffixes.items(), key=lambda entry: (-entry[1], entry[0]))
        kinds = [f"{suffix or 'no suffix'} ({n})" for suffix, n in ordered[:MOST_SUFFIXES]]
        more = ", ..." if len(ordered) > MOST_SUFFIXES else ""
        count = self._suffixes.total()
        return (
            f"{count} {'file' if count == 1 else 'files'} in '{self.folder}' left out, of kinds "
            f"that Pillow does not decode: {', '.join(kinds)}{more}."
        )


@dataclasses.dataclass(frozen=True)
class Entries:
    """What is in a folder, without hidden files and folders.

    Attributes:
        folder: the folder.
        folders: names of the folders in it, sorted; links are followed.
        files: names of the files in it, sorted.
        foreign: names of the folders that no user made, see `MADE_BY_OTHERS`; they are in none of
            the others.
        nowhere: by name, a sentence for each link that cannot be followed; those with the suffix of
            an image are in `files` too, and whoever reads them says that they cannot be read.
    """

    folder: str
    folders: list[str]
    files: list[str]
    foreign: list[str]
    nowhere: dict[str, str]

    @property
    def images(self) -> list[str]:
        """The names of the files that have the suffix of an image."""
        return [name for name in self.files if is_image(name)]


def entries_of(folder) -> Entries:
    """Lists a folder.

    Raises:
        OSError: it cannot be read; the message says why.
    """
    folder = os.fspath(folder)
    folders, files, foreign, nowhere = [], [], [], {}
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name[0] == ".":
                    continue
                why = _broken(entry)
                if why is not None:
                    nowhere[entry.name] = why
                elif not entry.is_dir():
                    files.append(entry.name)
                elif entry.name.lower() in MADE_BY_OTHERS:
                    foreign.append(entry.name)
                else:
                    folders.append(entry.name)
    except OSError as error:
        raise type(error)(
            f"Cannot read the folder '{folder}': {error.strerror}. Make it readable, or move it "
            "away."
        ) from error
    files += filter(is_image, nowhere)
    return Entries(folder, sorted(folders), sorted(files), sorted(foreign), nowhere)


def _broken(entry: os.DirEntry) -> str | None:
    """Returns a sentence if an entry is a link that cannot be followed, else None."""
    if not entry.is_symlink():
        return None
    try:
        entry.stat()
        return None
    except OSError as error:
        target = os.fsencode(os.readlink(entry.path))
        said = target.decode("utf-8", "replace")
        return f"'{entry.path}' is a link to '{said}', which leads nowhere: {error.strerror}."


def walk(folder, left: Left) -> list[str]:
    """Returns the image files of a folder and its subfolders, sorted.

    Args:
        folder: the folder.
        left: gets what is left out.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found = []
    # Links may form cycles, and one to a folder above would lead to the images of other classes.
    here = pathlib.Path(os.path.realpath(folder))
    been = {str(above) for above in (here, *here.parents)}
    coming = [os.fspath(folder)]
    while coming:
        parent = coming.pop()
        try:
            inside = entries_of(parent)
        except OSError as error:
            if parent == os.fspath(folder):
                raise
            left.unread(error)
            continue
        left.within(inside)
        found += [os.path.join(parent, name) for name in inside.images]
        below = []
        for path in (os.path.join(parent, name) for name in inside.folders):
            real = os.path.realpath(path)
            if real not in been:
                been.add(real)
                below.append(path)
        coming += reversed(below)
    return in_order(found)


def in_order(paths: list[str]) -> list[str]:
    """Returns paths sorted by their parts."""
    return sorted(paths, key=lambda path: path.split(os.sep))


def is_image(name: str) -> bool:
    """Whether a file has a suffix of files that Pillow decodes."""
    return _suffix(name) in suffixes()


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


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
