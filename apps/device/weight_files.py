"""The files beside an .onnx file that hold its weights (ONNX calls them external data).

onnxruntime says of a file that is cut short how many bytes it lacks, but not which file it is. So
the names are read here, without the onnx package: devices do not have it.
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
    """The files that a model keeps its weights in, besides its own, in the order of their names.

    Args:
        path: a `.onnx` file.

    Returns:
        Their paths; empty where all weights are in the file itself.

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
    """What is wrong with the weight files of a model, as far as the manifest beside it tells.

    A file of the right size with other bytes in it can be told by its checksum only. onnxruntime
    would take it, and answer nonsense.

    Args:
        path: a `.onnx` file.

    Returns:
        By file, what is wrong; empty where nothing is, or where there is no manifest.
    """
    folder = pathlib.Path(path).parent
    if not (folder / manifests.NAME).is_file():
        return {}
    try:
        manifest = manifests.read(folder)
    except ValueError:  # a file of somebody else's
        return {}
    described = [
        entry
        for entry in manifests.described_files(manifest)
        if not entry["file"].endswith((".onnx", ".ort"))
    ]
    # Looking through a large model takes time: only where there are weights beside some.
    used = {file.name for file in weight_files(path)} if described else set()
    found = manifests.damage(folder, [entry for entry in described if entry["file"] in used])
    return {folder / name: what for name, what in found.items()}
