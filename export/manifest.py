"""`manifest.json`, the list of files in a folder of exported tasks."""

import glob
import importlib.metadata
import json
import math
import os
import pathlib
from collections.abc import Iterable
from typing import TypeAlias

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


# Required keys, and the types of their values: of the manifest, of a file, of a task, and of a file
# of shared weights.
NUMBER = (int, float)
Types: TypeAlias = dict[str, type | tuple[type, ...]]
MANIFEST: Types = {"kind": str, "tasks": list}
LONGEST_NAME = 255  # bytes of a file's name, on all usual systems
FILE: Types = {"file": str, "bytes": int, "sha256": str}
TASK: Types = {
    **FILE,
    "task": str,
    "number": int,
    "external": list,
    "inputs": list,
    "outputs": list,
    "classes": (list, type(None)),
    "own_sha256": str,
    "opset": int,
    "options": dict,
    "relative_difference": NUMBER,
    "made_by": dict,
}
ROUTER: Types = {
    **FILE,
    "external": list,
    "tasks": dict,
    "inputs": list,
    "outputs": list,
}
OPTIONAL = {"precision": str, "calibrated": bool}  # of a task, and of a file of shared weights
SHARED: Types = {**FILE, "tasks": list, "bits": int, "tensors": dict}


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
    """Checks the required keys, the types of their values, and the file names.

    Raises:
        KeyError: a key is missing.
        TypeError: a value has another type.
        ValueError: a file is not in the manifest's folder, or a number is not finite.
    """
    _check_types(manifest, MANIFEST)
    if manifest["kind"] not in (FILES, BUNDLE):
        raise ValueError(f"kind '{manifest['kind']}', expected '{FILES}' or '{BUNDLE}'")
    if manifest["kind"] == BUNDLE:
        _check_types(manifest, {"shared": list})
        if not manifest["shared"]:
            raise ValueError("a bundle without shared weights")
    for task in manifest["tasks"]:
        _check_types(task, TASK)
        if not math.isfinite(task["relative_difference"]):
            raise ValueError(f"relative_difference {task['relative_difference']}")
        for entry in task["external"]:
            _check_types(entry, FILE)
    if "router" in manifest:
        _check_types(manifest["router"], ROUTER)
        _check_types(manifest["router"]["tasks"], dict.fromkeys(manifest["router"]["tasks"], int))
        for entry in manifest["router"]["external"]:
            _check_types(entry, FILE)
    for entry in manifest.get("shared", []):
        _check_types(entry, SHARED)
        if not _is_range(entry["tasks"]):
            raise ValueError(
                f"tasks {entry['tasks']} of a shared file, expected the first and last number"
            )
        _check_types(entry["tensors"], dict.fromkeys(entry["tensors"], int))
        if not all(0 <= offset <= entry["bytes"] for offset in entry["tensors"].values()):
            raise ValueError(f"tensors that begin outside of '{entry['file']}'")
    for entry in (*manifest["tasks"], *manifest.get("shared", [])):
        for key, kind in OPTIONAL.items():
            if type(entry.get(key, kind())) is not kind:
                raise TypeError(f"'{key}' is a {type(entry[key]).__name__}")
    for entry in described_files(manifest):
        name = entry["file"]
        is_name = pathlib.PurePath(name).name == name and name not in ("", ".", "..")
        if not is_name or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
            raise ValueError(f"'{name}' is not the name of a file beside it")


def _is_range(found: list) -> bool:
    return len(found) == 2 and all(type(n) is int for n in found) and 1 <= found[0] <= found[1]


def _check_types(entry: object, types: Types) -> None:
    if not isinstance(entry, dict):
        raise TypeError(f"{type(entry).__name__} where a dict is expected")
    for key, expected in types.items():
        if not isinstance(entry[key], expected) or isinstance(entry[key], bool):
            raise TypeError(f"'{key}' is a {type(entry[key]).__name__}")


def write(directory: AnyPath, manifest: dict) -> None:
    """Writes a folder's manifest."""
    text = json.dumps(manifest, indent=1) + "\n"
    (pathlib.Path(directory) / NAME).write_text(text, encoding="utf-8")


def with_task(manifest: dict, entry: dict) -> dict:
    """Returns the manifest with a task's entry added or replaced, in the order of packing.

    A router leaves it if the task's file has replaced it.
    """
    others = [
        task
        for task in manifest["tasks"]
        if task["file"] != entry["file"] and task["task"] != entry["task"]
    ]
    tasks = sorted([*others, entry], key=lambda task: task["number"])
    fresh = {key: value for key, value in empty(manifest["kind"]).items() if key != "tasks"}
    updated = {**manifest, **fresh, "tasks": tasks}
    if updated.get("router", entry)["file"] == entry["file"]:
        updated.pop("router", None)
    return updated


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
    router = [manifest["router"]] if "router" in manifest else []
    return _with_external(router) + files_of_tasks(manifest)


def files_of_tasks(manifest: dict) -> list[dict]:
    """Returns the files of a manifest that are not a router's."""
    return _with_external(manifest["tasks"]) + manifest.get("shared", [])


def _with_external(models: list[dict]) -> list[dict]:
    return [entry for model in models for entry in (model, *model["external"])]


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
