"""Checks `.keras` and HDF5 files before Keras reads them: no more in them than their size allows.

A compressed member of a zip archive, or an HDF5 dataset that only declares its shape, would make
gigabytes of a small file. Keras writes neither.
"""

import collections
import io
import math
import pathlib
import struct
import zipfile
import zlib

import h5py

from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import listed, quoted

# What zipfile raises for damaged archives; its decompressor raises errors of its own.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
EXPANSION = 3  # how much larger than its file the contents of an archive may be
LAYERS = 200_000  # lists and dicts of a configuration; a network of 700 layers has 20,000
SMALL = 2**22  # bytes that the contents may always have
_HEADER = struct.Struct("<26x2H")  # before a member: the lengths of its name and its extra field


def check_keras_file(path: pathlib.Path, exact: bool = False) -> int:
    """Refuses a `.keras` file that is damaged, or whose contents are larger than it.

    Args:
        path: the file.
        exact: whether it is a pack, which has no members but those of every Keras file.

    Returns:
        The size of the arrays in it in bytes.

    Raises:
        ValueError: the message names the file, and says what is wrong with it.
    """
    if path.is_dir():
        raise ValueError(
            f"'{path}' is a folder; expected a .keras file. Write '{path / 'pack.keras'}'."
        )
    remedy = f"Restore it from a backup, or save the {'pack' if exact else 'model'} again."
    try:
        with zipfile.ZipFile(path) as file:
            _check_members(file, path.stat().st_size, exact)
            broken = file.testzip()
            if broken:
                raise ValueError(f"the checksum of its '{broken}' is wrong")
            if not isinstance(parse_json(file.read(CONFIG), LAYERS), dict):
                raise ValueError(f"its '{CONFIG}' describes no model")
            return _check_weights(file)
    except (OSError, *DAMAGED) as error:
        raise ValueError(
            f"'{path}' is damaged or not a .keras file: {quoted(error)} (is it cut short?). "
            f"{remedy}"
        ) from error
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: {quoted(error)}. {remedy}") from error


def check_hdf5(file: io.IOBase | pathlib.Path, size: int) -> int:
    """Refuses an HDF5 file whose arrays are larger than it, or are in other files.

    Args:
        file: the file, or its path.
        size: its size in bytes.

    Returns:
        The size of its arrays in bytes.

    Raises:
        ValueError: the message says which part of it is refused.
        OSError: it is no HDF5 file.
    """
    with h5py.File(file, "r") as opened:
        found, seen, groups = 0, set(), [opened["/"]]
        while groups:
            group = groups.pop()
            for name in group:
                part = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"its '{part}' is a link, which could lead to another file")
                item = group[name]
                place = h5py.h5o.get_info(item.id).addr
                if place in seen:
                    continue
                seen.add(place)
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    found += _size_of(item, part)
                if found > size:
                    raise ValueError(
                        f"its arrays up to '{part}' take {found:,} bytes, more than the {size:,} "
                        "that are stored"
                    )
    return found


def _size_of(dataset: h5py.Dataset, part: str) -> int:
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"its '{part}' has its values in another file")
    if dataset.dtype.hasobject:
        raise ValueError(f"its '{part}' has values of unknown lengths")
    return math.prod(dataset.shape or ()) * dataset.dtype.itemsize


def _check_members(file: zipfile.ZipFile, size: int, exact: bool) -> None:
    names = [info.filename for info in file.infolist()]
    wanted = (CONFIG, WEIGHTS) if exact else (CONFIG,)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"it lacks {listed(missing)}")
    others = [name for name, count in collections.Counter(names).items() if count > 1]
    if exact:
        kept = (CONFIG, METADATA, WEIGHTS)
        others += [name for name in names if not (name in kept or _is_asset(name))]
    if others:
        raise ValueError(f"it has members that Keras does not write: {listed(others)}")
    _check_sum(file, size)


def _is_asset(name: str) -> bool:
    """Whether it is a file that a layer keeps, such as the vocabulary of an `IntegerLookup`.

    Keras writes it to the folder of the layer.
    """
    parts = name.split("/")
    return parts[0] == "assets" and len(parts) > 2 and not {"", ".", ".."} & {*parts}


def check_expansion(path: pathlib.Path) -> None:
    """Refuses a zip archive whose contents are much larger than it.

    Args:
        path: the file.

    Raises:
        ValueError, zipfile.BadZipFile: the message says why.
    """
    with zipfile.ZipFile(path) as file:
        _check_sum(file, path.stat().st_size)


def _check_sum(file: zipfile.ZipFile, size: int) -> None:
    whole, room = sum(info.file_size for info in file.infolist()), max(SMALL, EXPANSION * size)
    if whole > room:
        raise ValueError(
            f"its {size:,} bytes would become {whole:,}, more than a file of this size may hold; "
            "Keras and NumPy write files without compression"
        )


def _check_weights(file: zipfile.ZipFile) -> int:
    if WEIGHTS not in file.namelist():
        return 0
    info = file.getinfo(WEIGHTS)
    stored = info.compress_type == zipfile.ZIP_STORED
    try:
        part = _Part(file, info) if stored else io.BytesIO(file.read(info))
        return check_hdf5(part, info.file_size)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"its '{WEIGHTS}' is no readable HDF5 file: {quoted(error)}") from error


class _Part(io.RawIOBase):
    """An uncompressed member of an archive as a file, in which seeking takes no time."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        assert archive.fp is not None
        self._file, self._size, self._at = archive.fp, info.file_size, 0
        self._file.seek(info.header_offset)
        name, extra = _HEADER.unpack(self._file.read(_HEADER.size))
        self._start = info.header_offset + _HEADER.size + name + extra

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
