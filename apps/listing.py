"""What is listed of folders of images, the same in training and on the device."""

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
    root = pathlib.Path(folder)
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )
    if not found:
        raise FileNotFoundError(f"There are no images in '{folder}' ({', '.join(SUFFIXES)}).")
    return [str(path) for path in found]
