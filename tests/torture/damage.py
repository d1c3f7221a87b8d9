"""Changes of bytes, of JSON values, of members of zip files and of HDF5 arrays, at random."""

import io
import json
import pathlib
import random
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np

# What a value may be replaced by.
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 5, 255, 256, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308,
    float("nan"), float("inf"), "", "x", "../secret.bin", "/etc/passwd", "a\x1b[31m\n",
    "float16", "int8", "complex64", "x" * 50_000,
    [], [[]], [0], [-1, 3], [2**40], {}, {"a": {}}, {"class_name": "Lambda", "config": {}},
)  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flips up to 8 bits."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def cut(data: bytes, rng: random.Random) -> bytes:
    """Leaves out the end."""
    return data[: rng.randrange(len(data))]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """Replaces a part by zeros, by noise, or by another part; or puts it in or takes it out."""
    begin = rng.randrange(len(data))
    size = rng.randint(1, min(4096, len(data) - begin))
    other = rng.randrange(len(data) - size + 1)
    new = rng.choice([bytes(size), rng.randbytes(size), data[other : other + size], b""])
    end = begin + rng.choice([0, size])
    return data[:begin] + new + data[end:]


ANY_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, overwrite)


def edit_json(data: bytes, rng: random.Random) -> bytes:
    """Changes one value, at any depth, also within strings that hold JSON."""
    return json.dumps(_edited(json.loads(data), rng)).encode()


def _edited(value: Any, rng: random.Random) -> Any:
    places = list(_places(value, ()))
    if not places:
        return rng.choice(VALUES)
    place = rng.choice(places)
    parent, key = _at(value, place[:-1]), place[-1]
    old = parent[key]
    inner = _json_in(old)
    if inner is not None and rng.random() < 0.9:
        parent[key] = json.dumps(_edited(inner, rng))
        return value
    how = rng.random()
    if how < 0.15:
        del parent[key]
    elif how < 0.25 and isinstance(parent, list):
        parent.insert(key, old)
    elif how < 0.5 and isinstance(old, int | float):
        parent[key] = old + rng.choice([-1, 1, 0.5, 1000])
    elif how < 0.65:  # a value from elsewhere
        other = rng.choice(places)
        parent[key] = json.loads(json.dumps(_at(value, other)))
    else:
        parent[key] = rng.choice(VALUES)
    return value


def _places(value: Any, path: tuple) -> Any:
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, entry in entries:
        yield (*path, key)
        if isinstance(entry, str) and _json_in(entry) is not None:
            for _ in range(20):  # its values are many, and each should have its turn
                yield (*path, key)
        yield from _places(entry, (*path, key))


def _at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def _json_in(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(value)
    except ValueError:
        return None


def edit_arrays(data: bytes, rng: random.Random) -> bytes:
    """Changes one array of an HDF5 file: a value, its dtype or its shape; or its place."""
    file = io.BytesIO(data)
    with h5py.File(file, "r+") as arrays:
        names: list[str] = []
        arrays.visititems(lambda name, entry: names.append(name) if _is_array(entry) else None)
        name = rng.choice(names)
        value = arrays[name][()]
        how = rng.choice(["value", "value", "value", "dtype", "shape", "remove", "move", "link"])
        if how == "remove" or how == "move":
            arrays.move(name, "elsewhere") if how == "move" else arrays.pop(name)
        elif how == "link":
            del arrays[name]
            arrays[name] = h5py.ExternalLink("../secret.bin", "/")
        else:
            new = _edited_array(np.array(value), how, rng)
            del arrays[name]
            arrays[name] = new
    return file.getvalue()


def _edited_array(value: np.ndarray, how: str, rng: random.Random) -> np.ndarray:
    if how == "dtype":
        kinds = ["int8", "float16", "float64", "complex64", "int64", "uint8", "S3", "bool"]
        return value.astype(rng.choice(kinds))
    if how == "shape" or not value.size:
        return (
            value.reshape(-1)[: rng.randint(0, value.size)] if rng.random() < 0.5 else value[None]
        )
    flat = value.reshape(-1)
    place = rng.randrange(flat.size)
    if value.dtype.kind == "f":
        news = [np.nan, np.inf, -np.inf, 1e30, 0.0, float(flat[place]) + 1e-3, -float(flat[place])]
        flat[place] = rng.choice(news)
    else:
        flat[place] = (
            rng.choice([0, 1, 2, 3, 255, int(flat[place]) ^ (1 << rng.randrange(7))]) % 256
        )
    return flat.reshape(value.shape)


def _is_array(entry: Any) -> bool:
    return isinstance(entry, h5py.Dataset)


def members(data: bytes) -> dict[str, bytes]:
    """Returns the members of a zip file."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(content: Mapping[str, bytes | list[bytes]], pressed: bool = False) -> bytes:
    """Returns a zip file; the checksums are right. A list is written piece by piece."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED if pressed else 0) as file:
        for name, entry in content.items():
            with file.open(name, "w") as member:
                for piece in [entry] if isinstance(entry, bytes) else entry:
                    member.write(piece)
    return found.getvalue()


def bombs(kind: str, config: dict) -> dict[str, bytes | list[bytes]]:
    """Returns members of a pack that are small in the file and large in memory.

    Args:
        kind: one of `BOMBS`.
        config: the JSON configuration of a pack.
    """
    if kind == "long configuration":
        return {"config.json": [json.dumps(config).encode(), *[b" " * 2**20] * 600]}
    if kind == "long weights":
        return {"model.weights.h5": [bytes(2**20)] * 600}
    if kind == "deep configuration":
        return {"config.json": b"[" * 200_000 + b"]" * 200_000}
    if kind == "deep tasks":
        config["config"]["tasks"] = "[" * 200_000 + "]" * 200_000
    elif kind == "many tasks":
        [first, *_] = json.loads(config["config"]["tasks"])
        config["config"]["tasks"] = json.dumps([first] * 20_000)
    elif kind == "long overlay":
        [first, *others] = json.loads(config["config"]["tasks"])
        config["config"]["tasks"] = json.dumps([{**first, "overlay_bytes": 2**31}, *others])
    elif kind == "large layer":
        for layer in config["config"]["trunk"]["config"]["layers"]:
            if layer["class_name"] == "Dense":
                layer["config"]["units"] = 10**8
    else:
        file = io.BytesIO()
        with h5py.File(file, "w") as arrays:
            shape = (2**28,)
            arrays.create_dataset("vars/tasks", shape, "u1", chunks=(2**20,), compression="gzip")
            group = arrays.create_group("trunk/vars")
            group.create_dataset("0", (2**30,), "f4", chunks=(2**20,), compression="gzip")
        return {"model.weights.h5": file.getvalue()}
    return {"config.json": json.dumps(config).encode()}


BOMBS = (
    "long configuration", "long weights", "deep configuration", "deep tasks", "many tasks",
    "long overlay", "large layer", "large arrays",
)  # fmt: skip


def large_png(side: int = 20_000) -> bytes:
    """Returns an image of half a MB that takes 400 MB as pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(name + data)
        return len(data).to_bytes(4, "big") + name + data + sum_.to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    packer, rows = zlib.compressobj(1), io.BytesIO()
    for _ in range(side):
        rows.write(packer.compress(bytes(side + 1)))
    rows.write(packer.flush())
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", rows.getvalue()), chunk(b"IEND", b"")]
    )


def random_file(folder: pathlib.Path, rng: random.Random) -> pathlib.Path:
    """Returns a file of a folder."""
    return rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
