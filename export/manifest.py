"""`manifest.json`, the list of files in a folder of exported tasks."""

import glob
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Iterable

import packnet_tf
from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import quoted
from packnet_tf.backend.types import AnyPath
from packnet_tf.export.files import remove_leftovers, sha256

NAME = "manifest.json"
FORMAT = 3
FILES, BUNDLE = "files", "bundle"
NAMES = ("number", "task")
TOOLS = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime")


# Required keys of a task's entry, and of a shared file's.
TASK = (
    *("task", "number", "file", "bytes", "sha256", "external", "inputs", "outputs", "classes"),
    *("own_sha256", "opset", "options", "relative_difference", "made_by"),
)
SHARED = ("file", "bytes", "sha256", "tasks", "bits", "tensors")


def empty(kind: str) -> dict:
    """Returns a manifest without tasks.

    Args:
        kind: `FILES` for a file per task, `BUNDLE` for tasks that share their weights.
    """
    return {
        "format": FORMAT,
        "made_by": made_by(),
        "kind": kind,
        "tasks": [],
    }


def made_by() -> dict[str, str | None]:
    """Returns the versions of packnet_tf and of the packages that write the files."""
    return {"packnet_tf": packnet_tf.__version__, **{name: _version(name) for name in TOOLS}}


def read(directory: AnyPath) -> dict:
    """Reads the manifest of a folder; returns an empty one if there is none.

    Raises:
        ValueError: the file is not a manifest.
    """
    path = pathlib.Path(directory) / NAME
    if not os.path.exists(path):  # not path.exists(), which raises for names that are too long
        return empty(FILES)
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}, expected {FORMAT}")
        _check(manifest)
    except (ValueError, KeyError, TypeError) as error:
        text = f"it lacks {error}" if isinstance(error, KeyError) else quoted(error)
        raise ValueError(
            f"'{path}' is not a manifest of exported tasks ({text}). Remove it, and export again."
        ) from error
    return manifest


def _check(manifest: dict) -> None:
    """Checks the required keys and the file names.

    Raises:
        KeyError, TypeError: a key is missing.
        ValueError: a file is not in the manifest's folder.
    """
    for entry in manifest["tasks"]:
        [entry[key] for key in TASK]
    for entry in manifest["shared"] if manifest["kind"] == BUNDLE else ():
        [entry[key] for key in SHARED]
    for entry in described_files(manifest):
        if pathlib.PurePath(entry["file"]).name != entry["file"]:
            raise ValueError(f"'{entry['file']}' is not the name of a file beside it")


def write(directory: AnyPath, manifest: dict) -> None:
    """Writes a folder's manifest."""
    text = json.dumps(manifest, indent=1) + "\n"
    (pathlib.Path(directory) / NAME).write_text(text, encoding="utf-8")


def with_task(manifest: dict, entry: dict) -> dict:
    """Returns the manifest with a task's entry added or replaced, in the order of packing."""
    others = [
        task
        for task in manifest["tasks"]
        if task["file"] != entry["file"] and task["task"] != entry["task"]
    ]
    tasks = sorted([*others, entry], key=lambda task: task["number"])
    fresh = {key: value for key, value in empty(manifest["kind"]).items() if key != "tasks"}
    return {**manifest, **fresh, "tasks": tasks}


def file_names(names: str, tasks: Iterable[str]) -> dict[str, str]:
    """Returns the names of the files of tasks, by task.

    Args:
        names: "number" or "task".
        tasks: all tasks of the pack, in the order of packing.

    Raises:
        ValueError: `names` is something else.

    Example:
        >>> file_names("number", ["birds", "cars"])
        {'birds': 'model_task1.onnx', 'cars': 'model_task2.onnx'}
        >>> file_names("task", ["birds", "cars"])
        {'birds': 'birds.onnx', 'cars': 'cars.onnx'}
    """
    if names not in NAMES:
        remedy = " or ".join(f"names={name!r}" for name in NAMES)
        raise ValueError(f"names={names!r} is not known to the export; write {remedy}.")
    numbered = enumerate(tasks, start=1)
    if names == "number":
        return {task: f"model_task{number}.onnx" for number, task in numbered}
    return {task: f"{task}.onnx" for _, task in numbered}


def described_files(manifest: dict) -> list[dict]:
    """Returns the files of a manifest as dicts with `file`, `bytes` and `sha256`."""
    return [
        entry for task in manifest["tasks"] for entry in (task, *task["external"])
    ] + manifest.get("shared", [])


def remove_stale(directory: AnyPath, old: dict, new: dict, written: Iterable[str]) -> None:
    """Removes files of earlier exports that the new manifest does not list.

    A file is removed only if this package has written it: its contents are those of the old
    manifest, or it is a file of weights that an interrupted export left, see `remove_leftovers`.

    Args:
        directory: the folder.
        old, new: the manifests.
        written: names of files that were just written; they stay.
    """
    directory = pathlib.Path(directory)
    meant = {(entry["file"], entry["sha256"]) for entry in described_files(new)}
    for entry in described_files(old):
        path, content = directory / entry["file"], entry["sha256"]
        if (path.name, content) in meant or path.name in written:
            continue
        if path.is_file() and sha256(path) == content:
            path.unlink()
    kept = {name for name, _ in meant}
    for pattern in ("shared*", *(glob.escape(task["file"]) for task in new["tasks"])):
        remove_leftovers(directory, pattern, kept)


def damage(directory: AnyPath, described: Iterable[dict]) -> dict[str, str]:
    """Finds files that are missing, cut off or changed; returns the problem by file name.

    Args:
        directory: the folder.
        described: entries as returned by `described_files`.
    """
    found = {}
    for entry in described:
        path = pathlib.Path(directory) / entry["file"]
        if not path.exists():
            found[path.name] = "it is missing"
        elif path.stat().st_size != entry["bytes"]:
            size = path.stat().st_size
            found[path.name] = f"it has {size:,} bytes, the manifest says {entry['bytes']:,}"
        elif sha256(path) != entry["sha256"]:
            found[path.name] = "its checksum is not the manifest's: it is damaged or another file"
    return found


def describe_file(path: pathlib.Path) -> dict:
    """Returns a file's entry: its name, size in bytes and checksum."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _version(name: str) -> str | None:
    for package in (name, f"{name}-gpu"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
