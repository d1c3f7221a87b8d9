"""Files of an export: written beside the old ones, and put in their place together."""

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

# Protocol buffers end at 2 GiB; the graph itself needs some of it.
EXTERNAL_ABOVE = 2**31 - 2**24
SMALL = 1024  # bytes; smaller weights stay in the model
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def is_large(proto: "ModelProto") -> bool:
    """Whether what an ONNX model holds itself is too large for one file."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > EXTERNAL_ABOVE


def save(proto: "ModelProto", path: pathlib.Path) -> list[pathlib.Path]:
    """Writes an ONNX model and checks it.

    Args:
        proto: an `onnx.ModelProto`; what it holds itself may be larger than 2 GiB: then its large
            weights go into a file of their own, `NAME.onnx.data`.
        path: the `.onnx` file.

    Returns:
        The files written, the model first.
    """
    import onnx

    files = [path]
    if is_large(proto):
        data = path.with_name(f"{path.name}.data")
        data.unlink(missing_ok=True)  # onnx appends
        onnx.external_data_helper.convert_model_to_external_data(
            proto, all_tensors_to_one_file=True, location=data.name, size_threshold=SMALL
        )
        files.append(data)
    onnx.save(proto, os.fspath(path))
    onnx.checker.check_model(os.fspath(path))
    return files


@contextlib.contextmanager
def beside(directory: AnyPath) -> Iterator[pathlib.Path]:
    """Yields an empty folder within `directory`; on success its files move into `directory`.

    When the block raises, they are gone, and `directory` is as it was.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; in one sentence.
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
    """What refers to other files comes after them: models, and the manifest at last."""
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
    """Whether an error says that the folder cannot be written to; else it is of a user's data."""
    if error.errno in FULL:
        return True
    where = pathlib.Path(error.filename or directory)
    near = where == directory or where in directory.parents or directory in where.parents
    return error.errno in CLOSED and near


def _missing(directory: pathlib.Path) -> list[pathlib.Path]:
    """The folders that will be made, the innermost first."""
    return [folder for folder in (directory, *directory.parents) if not folder.exists()]


def _cannot_write(directory: pathlib.Path, error: OSError) -> OSError:
    remedy = "Make room there, or name" if error.errno in FULL else "Name"
    return OSError(
        f"Cannot write to '{directory}': {os.strerror(error.errno or 0)}. {remedy} another folder. "
        "Nothing was left behind."
    )
