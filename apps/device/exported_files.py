"""Finds the files of an export."""

import os
import pathlib
from collections.abc import Sequence

from packnet_tf.apps.device.sessions import COPY
from packnet_tf.backend.text import listed
from packnet_tf.export import manifest as manifests


def exported_files(path: str, tasks: Sequence[str] | None = None) -> list[str]:
    """Returns a file by itself, or the tasks' files that a folder's manifest lists.

    Files that a manifest lists, beside them or in the folder, are compared with it.

    Args:
        path: a `.onnx` or `.ort` file, or a folder that packnet export wrote.
        tasks: of a folder, only the files of these tasks.

    Raises:
        FileNotFoundError: the folder has no manifest.
        OSError: a file does not match the manifest.
        ValueError: the folder has no such task, or none at all.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        check_files(folder.parent, [e for e in _listed_beside(folder) if e["file"] == folder.name])
        return [path]
    if not (folder / manifests.NAME).is_file():
        raise FileNotFoundError(
            f"The folder '{path}' has no {manifests.NAME}. Name a folder that packnet export "
            "wrote, or one .onnx file."
        )
    entries = manifests.read(folder)["tasks"]
    if not entries:
        raise ValueError(
            f"'{folder / manifests.NAME}' lists no tasks. Write some with packnet export."
        )
    known = [entry["task"] for entry in entries]
    unknown = sorted({*(tasks or ())} - {*known})
    if unknown:
        raise ValueError(f"'{path}' has no task '{unknown[0]}'; it has {listed(known)}.")
    chosen = [entry for entry in entries if not tasks or entry["task"] in tasks]
    check_files(folder, chosen)
    return [os.fspath(folder / entry["file"]) for entry in chosen]


def _listed_beside(path: pathlib.Path) -> list[dict]:
    """Returns the entries of the manifest beside a file; none if there is no such manifest."""
    try:
        return manifests.described_files(manifests.read(path.parent)) if path.is_file() else []
    except ValueError:  # a manifest.json of another program
        return []


def check_files(folder: pathlib.Path, entries: Sequence[dict]) -> None:
    """Compares files with their entries in a manifest.

    Raises:
        OSError: a file is missing, cut off or changed.
    """
    for entry in entries:
        damage = manifests.damage(folder, [entry])
        if damage:
            raise OSError(f"'{folder / entry['file']}': {damage[entry['file']]}. {COPY}")
