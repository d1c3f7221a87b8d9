"""Which class every image of a folder is of, by the names that an exported file has for them."""

import dataclasses
import pathlib
from collections.abc import Sequence

from packnet_tf.apps.listing import class_folders, images_in

LAYOUT = "Expected DIR/{train,validation,test}/<class>/<image>, or DIR/<class>/<image>."


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Images with their classes.

    Attributes:
        folder: the folder of the class folders.
        classes: names of the classes; their order is that of the labels.
        files: pairs (path, label), sorted by label and path.
    """

    folder: pathlib.Path
    classes: list[str]
    files: list[tuple[str, int]]


def labelled_images(
    directory, split: str | None, classes: Sequence[str] | None, count: int | None
) -> Labelled:
    """Lists the images of a folder, class by class.

    Args:
        directory: a task's folder, `DIR/{train,validation,test}/<class>/<image>`, or one that has
            the class folders in it.
        split: which of them; None for `test` where there is one, else `validation`.
        classes: the file's names of its classes; None where it has none: then the class folders
            are taken in the order of their names.
        count: how many classes the file has, where that is known.

    Raises:
        FileNotFoundError: the folder, the split, or the images of a class are missing.
        ValueError: the class folders are not the file's classes.
    """
    folder = _split_folder(pathlib.Path(directory), split)
    found = class_folders(folder)
    if not found:
        raise FileNotFoundError(f"'{folder}' has no class folders. {LAYOUT}")
    if classes is None:
        classes = found
        if count not in (None, len(found)):
            raise ValueError(
                f"'{folder}' has {len(found)} class folders ({', '.join(found)}), and the file has "
                f"{count} classes without names. Expected one folder per class, sorted as in "
                "training."
            )
    else:
        _check_names(folder, found, classes)
    files = [
        (path, label) for label, name in enumerate(classes) for path in images_in(folder / name)
    ]
    return Labelled(folder, list(classes), files)


def _split_folder(root: pathlib.Path, split: str | None) -> pathlib.Path:
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder '{root}'. {LAYOUT}")
    if split is not None:
        if not (root / split).is_dir():
            raise FileNotFoundError(f"'{root}' has no folder '{split}'. {LAYOUT}")
        return root / split
    for name in ("test", "validation"):
        if (root / name).is_dir():
            return root / name
    if (root / "train").is_dir():
        raise FileNotFoundError(
            f"'{root}' has no folder 'test' or 'validation'. Name '{root / 'train'}' to measure on "
            "the images it was trained with."
        )
    return root


def _check_names(folder: pathlib.Path, found: Sequence[str], classes: Sequence[str]) -> None:
    missing = [name for name in classes if name not in found]
    unknown = [name for name in found if name not in classes]
    if missing or unknown:
        said = [f"lacks {_quoted(missing)}"] * bool(missing)
        said += [f"has {_quoted(unknown)}, which the file does not know"] * bool(unknown)
        raise ValueError(
            f"'{folder}' {' and '.join(said)}. Expected one folder per class of the file: "
            f"{', '.join(classes)}."
        )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
