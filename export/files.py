"""Writing the files of an export so that they all appear together."""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from packnet_tf.backend.atomic import FULL, flush, own_prefix, remove_dead
from packnet_tf.backend.types import AnyPath

if TYPE_CHECKING:
    from onnx import ModelProto

# A protocol buffer holds 2 GiB at most, of which the graph itself needs a part.
EXTERNAL_ABOVE = 2**31 - 2**24
DIGITS = 12  # of the SHA-256 in the name of a file of weights
SMALL = 1024  # bytes; smaller weights stay in the model
CLOSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip


def is_large(proto: "ModelProto") -> bool:
    """Whether an ONNX model, external data aside, is too large for one file."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EXTERNAL_ABOVE


def save(proto: "ModelProto", path: pathlib.Path) -> list[pathlib.Path]:
    """Writes an ONNX model and checks it.

    Args:
        proto: an `onnx.ModelProto`. If it is larger than 2 GiB, its large weights go to a second
            file, `NAME.onnx-HASH.data`.
        path: the `.onnx` file.

    Returns:
        The files that were written, the model first.
    """
    import onnx

    files = [path]
    if is_large(proto):
        data = path.with_name(f"{path.name}.data")
        data.unlink(missing_ok=True)  # onnx would append to it
        onnx.external_data_helper.convert_model_to_external_data(
            proto, all_tensors_to_one_file=True, location=data.name, size_threshold=SMALL
        )
        onnx.save(proto, os.fspath(path))
        proto = onnx.load(os.fspath(path), load_external_data=False)
        files.append(name_by_content(data))
        relocate(proto, {data.name: files[-1].name})
    onnx.save(proto, os.fspath(path))
    onnx.checker.check_model(os.fspath(path))
    return files


def name_by_content(path: pathlib.Path) -> pathlib.Path:
    """Renames a file of weights after its contents; returns the new path.

    Graphs that refer to it can then be replaced one by one: an old graph keeps the old weights.

    Args:
        path: the file, `shared.data` for instance, which becomes `shared-1a2b3c4d5e6f.data`.
    """
    named = path.with_name(f"{path.stem}-{sha256(path)[:DIGITS]}{path.suffix}")
    os.replace(path, named)
    return named


def remove_leftovers(directory: pathlib.Path, pattern: str, kept: Collection[str]) -> None:
    """Removes files of weights that earlier graphs referred to.

    Args:
        directory: the folder.
        pattern: a glob pattern for what `name_by_content` puts before the hash.
        kept: names of files to keep.
    """
    for path in directory.glob(f"{pattern}-{'[0-9a-f]' * DIGITS}.data"):
        if path.name not in kept and sha256(path)[:DIGITS] in path.name:
            path.unlink()


def sha256(path: AnyPath) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def relocate(proto: "ModelProto", names: Mapping[str, str]) -> None:
    """Changes the names of files that a model refers to.

    Args:
        proto: an `onnx.ModelProto` with external data.
        names: new names by old ones.
    """
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names.get(entry.value, entry.value)


@contextlib.contextmanager
def beside(directory: AnyPath) -> Iterator[pathlib.Path]:
    """Yields an empty folder within `directory`; its files move to `directory` on success.

    If the block raises, they are deleted, and `directory` is as it was before.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    directory = pathlib.Path(directory)
    made = _missing(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_dead(directory)
        with tempfile.TemporaryDirectory(prefix=own_prefix(), dir=directory) as aside:
            yield pathlib.Path(aside)
            files = sorted(pathlib.Path(aside).iterdir(), key=_rank)
            for path in files:
                flush(path)
            _move(files, directory)
            flush(directory)
    except BaseException as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and _is_about(directory, error):
            raise _cannot_write(directory, error) from error
        raise


def _rank(path: pathlib.Path) -> int:
    """Sort key that places a file after those it refers to: models late, the manifest last."""
    return (path.suffix == ".onnx") + 2 * (path.suffix == ".json")


def _move(files: list[pathlib.Path], directory: pathlib.Path) -> None:
    """Moves files to a folder; if that is interrupted, puts back the files they replaced."""
    old: dict[pathlib.Path, pathlib.Path | None] = {}  # by target
    try:
        for path in files:
            target = directory / path.name
            kept = path.with_name(f"{path.name}.old") if target.exists() else None
            if kept is not None:
                _keep(target, kept)
                path.chmod(stat.S_IMODE(target.stat().st_mode))
            old[target] = kept
            os.replace(path, target)
    except BaseException:
        for target, kept in reversed(old.items()):
            if kept is None:
                target.unlink(missing_ok=True)
            else:
                os.replace(kept, target)
        raise


def _keep(path: pathlib.Path, copy: pathlib.Path) -> None:
    """Makes a second name for a file, or a copy on file systems without hard links."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copy2(path, copy)


def _is_about(directory: pathlib.Path, error: OSError) -> bool:
    """Whether an error is about writing to the folder, and not about reading the user's data."""
    if error.errno in FULL:
        return True
    where, directory = pathlib.Path(error.filename or directory).absolute(), directory.absolute()
    near = where == directory or where in directory.parents or directory in where.parents
    return error.errno in CLOSED and near


def _missing(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders that have to be created, the innermost first."""
    return [folder for folder in (directory, *directory.parents) if not folder.exists()]


def _cannot_write(directory: pathlib.Path, error: OSError) -> OSError:
    remedy = "Make room there, or name" if error.errno in FULL else "Name"
    what = error.filename if error.errno == errno.EISDIR else directory
    return OSError(
        f"Cannot write to '{what}': {os.strerror(error.errno or 0)}. {remedy} another folder. "
        "Nothing was left behind."
    )
