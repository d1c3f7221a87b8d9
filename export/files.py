"""Writing the files of an export so that they all appear together."""

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from packnet_tf.backend.atomic import FULL, flush
from packnet_tf.backend.types import AnyPath

if TYPE_CHECKING:
    from onnx import ModelProto

# A protocol buffer holds 2 GiB at most, of which the graph itself needs a part.
EXTERNAL_ABOVE = 2**31 - 2**24
SMALL = 1024  # bytes; smaller weights stay in the model
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def is_large(proto: "ModelProto") -> bool:
    """Whether an ONNX model, external data aside, is too large for one file."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EXTERNAL_ABOVE


def save(proto: "ModelProto", path: pathlib.Path) -> list[pathlib.Path]:
    """Writes an ONNX model and checks it.

    Args:
        proto: an `onnx.ModelProto`. If it is larger than 2 GiB, its large weights go to a second
            file, `NAME.onnx.data`.
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
        files.append(data)
    onnx.save(proto, os.fspath(path))
    onnx.checker.check_model(os.fspath(path))
    return files


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
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=directory) as aside:
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
    new = []
    try:
        for path in files:
            target = directory / path.name
            new += [] if target.exists() else [target]
            os.replace(path, target)
    except BaseException:
        for target in new:
            target.unlink(missing_ok=True)
        raise


def _is_about(directory: pathlib.Path, error: OSError) -> bool:
    """Whether an error is about writing to the folder, and not about reading the user's data."""
    if error.errno in FULL:
        return True
    where = pathlib.Path(error.filename or directory)
    near = where == directory or where in directory.parents or directory in where.parents
    return error.errno in CLOSED and near


def _missing(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders that have to be created, the innermost first."""
    return [folder for folder in (directory, *directory.parents) if not folder.exists()]


def _cannot_write(directory: pathlib.Path, error: OSError) -> OSError:
    remedy = "Make room there, or name" if error.errno in FULL else "Name"
    return OSError(
        f"Cannot write to '{directory}': {os.strerror(error.errno or 0)}. {remedy} another folder. "
        "Nothing was left behind."
    )
