"""manifest.json: what lies in a folder of exported tasks."""

import hashlib
import json
import pathlib

import packnet_tf
from packnet_tf.atomic import replacing

NAME = "manifest.json"
FORMAT = 1


def read(directory) -> dict:
    """The manifest of a folder; an empty one where there is none yet.

    Raises:
        ValueError: the file is not a manifest.
    """
    path = pathlib.Path(directory) / NAME
    if not path.exists():
        return {"format": FORMAT, "packnet_tf": packnet_tf.__version__, "tasks": []}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["tasks"], manifest["format"]  # the parts that we rely on
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' is not a manifest of exported tasks ({error}). Remove it, and export again."
        ) from error
    return manifest


def write(directory, manifest: dict) -> None:
    """Writes a folder's manifest, atomically."""
    with replacing(pathlib.Path(directory) / NAME) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def with_task(manifest: dict, entry: dict) -> dict:
    """The manifest with a task's entry added or replaced, in the order of packing."""
    others = [task for task in manifest["tasks"] if task["file"] != entry["file"]]
    tasks = sorted([*others, entry], key=lambda task: task["number"])
    return {**manifest, "packnet_tf": packnet_tf.__version__, "tasks": tasks}


def sha256(path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
