"""Finds the files beside an .onnx file that hold its weights (ONNX's external data).

For a truncated file, onnxruntime reports how many bytes are missing, but not which file it is. So
the names are read here, without the onnx package, which devices do not have.
"""

import mmap
import os
import pathlib
import re

from packnet_tf.export import manifest as manifests

# A pair of protobuf strings, StringStringEntryProto{key: "location", value: NAME}: the tag and the
# length of the key, the key, the tag of the value. The length of NAME and NAME follow.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x00-\x7f])")


def weight_files(path) -> list[pathlib.Path]:
    """Returns the external weight files of a model, sorted by name.

    Args:
        path: a `.onnx` file.

    Returns:
        Their paths; empty if all weights are in the `.onnx` file.

    Example:
        >>> weight_files("onnx/model_task1.onnx")
        [PosixPath('onnx/shared.data')]
    """
    path = pathlib.Path(path)
    if os.path.getsize(path) == 0:  # cannot be mapped
        return []
    names = set()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for found in _LOCATION.finditer(data):
            low, *high = found.group(1)  # a varint: seven bits a byte, the lowest first
            length = (low & 0x7F) + (high[0] << 7 if high else 0)
            names.add(data[found.end() : found.end() + length])
    return [path.parent / name.decode("utf-8", "replace") for name in sorted(names)]


def changed_weights(path) -> dict[pathlib.Path, str]:
    """Checks the weight files of a model against the manifest beside it.

    Only the checksum reveals a changed file of the right size. onnxruntime would load it and give
    wrong outputs.

    Args:
        path: a `.onnx` file.

    Returns:
        The problem by file; empty if there is none, or no manifest.
    """
    folder = pathlib.Path(path).parent
    if not (folder / manifests.NAME).is_file():
        return {}
    try:
        manifest = manifests.read(folder)
    except ValueError:  # a manifest.json of another program
        return {}
    described = [
        entry
        for entry in manifests.described_files(manifest)
        if not entry["file"].endswith((".onnx", ".ort"))
    ]
    # Scanning a large model takes time, so do it only if the manifest lists shared files.
    used = {file.name for file in weight_files(path)} if described else set()
    found = manifests.damage(folder, [entry for entry in described if entry["file"] in used])
    return {folder / name: what for name, what in found.items()}
