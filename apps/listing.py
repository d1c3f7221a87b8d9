"""What is listed of folders of images, the same in training and on the device."""

import os
import pathlib

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def class_folders(folder) -> list[str]:
    """The names of the folders in a folder, sorted: those of its classes.

    What is hidden (its name begins with a dot) is left out.
    """
    entries = pathlib.Path(folder).iterdir()
    return sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")


def images_in(folder) -> list[str]:
    """The image files of a folder and the folders in it, by suffix, sorted by path.

    What is hidden (its name begins with a dot) is left out.

    Raises:
        FileNotFoundError: there is none.
    """
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [
            os.path.join(parent, name)
            for name in files
            if name[0] != "." and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    if not found:
        raise FileNotFoundError(f"There are no images in '{folder}' ({', '.join(SUFFIXES)}).")
    return sorted(found, key=lambda path: path.split(os.sep))
