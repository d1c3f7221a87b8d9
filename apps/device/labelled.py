"""Labels for a folder of images, by the class names of a task."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.images.listing import LAYOUT, classes_in, composed, split_folders, split_named
from packnet_tf.backend.text import listed


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Image files with their classes.

    Attributes:
        folder: the folder that holds the class folders.
        classes: names of the classes, by label.
        files: pairs (path, label), sorted by label and path.
        notes: a sentence for everything that was skipped.
    """

    folder: pathlib.Path
    classes: list[str]
    files: list[tuple[str, int]]
    notes: list[str]


def labelled_images(
    directory, split: str | None, classes: Sequence[str] | None, count: int | None
) -> Labelled:
    """Lists the images of a folder, class by class.

    Args:
        directory: a task's folder, `DIR/{train,validation,test}/<class>/<image>`, or a folder of
            class folders.
        split: which split; None for `test`, or `validation` if there is no `test`.
        classes: names of the task's classes; None if it has none. Then the class folders are
            labelled in the order of their names.
        count: number of the task's classes; None if unknown.

    Raises:
        FileNotFoundError: the folder, the split, or all images are missing.
        OSError: a folder cannot be read.
        ValueError: the class folders do not match the classes of the task; or see `split_folders`.
    """
    folder, beside = _split_folder(pathlib.Path(directory), split)
    images = classes_in(folder)
    found = images.files
    if not any(found.values()):
        raise FileNotFoundError(
            f"'{folder}' has no images in class folders. {' '.join([LAYOUT, *images.notes])}"
        )
    if classes is None:
        classes = list(found)
        if count not in (None, len(found)):
            raise ValueError(
                f"'{folder}' has {len(found)} class folders ({listed(found)}), and the task has "
                f"{count} classes without names. Expected one folder per class, sorted as in "
                "training."
            )
    else:
        _check_names(folder, found, classes)
    notes = beside + images.notes + images.lacks(classes)
    if split is None and folder == pathlib.Path(directory) and split_named(folder) is None:
        notes.append(
            f"'{folder}' has no folder 'test' or 'validation': all of its images count, also those "
            "that a task was trained with."
        )
    return Labelled(folder, list(classes), images.pairs(classes), notes)


def define_folders(values: flags.FlagValues, flag: str, what: str, otherwise: str) -> None:
    """Defines a flag whose values `folders_by_task` takes.

    Args:
        values: the flags of the command.
        flag: name of the flag.
        what: what the folders are, for the help.
        otherwise: which images count if a folder has no test or validation images, for the help.
    """
    flags.DEFINE_list(
        flag,
        [],
        f"{what}; for several tasks TASK:FOLDER, separated by commas. Uses the test images, or the "
        f"validation images, or {otherwise}.",
        flag_values=values,
    )


def folders_by_task(flag: str, given: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Returns the folders that a flag names, by task.

    Args:
        flag: the flag, for messages.
        given: its values, `TASK:FOLDER`; for a single task also `FOLDER`.
        tasks: names of the tasks that give classes.

    Raises:
        UsageError: a value names no folder, or not one of the tasks, or one that has a folder.

    Example:
        >>> folders_by_task("--data", ["leaves:photos/leaves"], ["flowers", "leaves"])
        {'leaves': 'photos/leaves'}
    """
    if given and not tasks:
        raise cli.UsageError(
            f"{flag}={','.join(given)}: there is no task that gives classes, so none to measure"
        )
    folders: dict[str, str] = {}
    for entry in given:
        task, colon, folder = entry.partition(":")
        if not colon and len(tasks) == len(given) == 1:
            task, folder = tasks[0], entry
        elif not colon:
            raise cli.UsageError(
                f"{flag}={entry} does not say which of the tasks {listed(tasks)} it is for. "
                f"Write {flag}=TASK:{entry}"
            )
        if task not in tasks:
            raise cli.UsageError(
                f"{flag} names the task '{task}'; the tasks that give classes are {listed(tasks)}"
            )
        if not folder:
            raise cli.UsageError(f"{flag}={entry} names no folder. Write {flag}={task}:FOLDER")
        if task in folders:
            raise cli.UsageError(
                f"{flag} names two folders for the task '{task}', '{folders[task]}' and "
                f"'{folder}'. Leave one of them out"
            )
        folders[task] = folder
    return folders


def _split_folder(root: pathlib.Path, split: str | None) -> tuple[pathlib.Path, list[str]]:
    """Returns the folder of a split, and a sentence for everything beside the splits."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder '{root}'. {LAYOUT}")
    splits = split_folders(root)
    folders, why = splits.folders, "".join(f" {note}" for note in splits.notes)
    if split is not None:
        found = folders.get(split_named(pathlib.Path(split)) or split)
        if found is None:
            raise FileNotFoundError(f"'{root}' has no folder '{split}'. {LAYOUT}{why}")
        return found, splits.notes
    for name in ("test", "validation"):
        if name in folders:
            return folders[name], splits.notes
    if "train" in folders:
        raise FileNotFoundError(
            f"'{root}' has no folder 'test' or 'validation'. Name '{folders['train']}' to measure "
            f"on the images it was trained with.{why}"
        )
    return root, splits.notes


def _check_names(
    folder: pathlib.Path, found: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> None:
    known = [composed(name) for name in classes]
    missing = [name for name in classes if composed(name) not in found]
    unknown = [name for name, paths in found.items() if paths and name not in known]
    if missing or unknown:
        said = [f"lacks {_quoted(missing)}"] * bool(missing)
        said += [f"has {_quoted(unknown)}, which the task does not know"] * bool(unknown)
        raise ValueError(
            f"'{folder}' {' and '.join(said)}. Expected one folder per class of the task: "
            f"{listed(classes)}."
        )


def _quoted(names: Sequence[str]) -> str:
    return listed(names)
