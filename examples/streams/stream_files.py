"""Reads the files of CIFAR-10 and CIFAR-100, "python version", and writes images.

The files are pickles. Loading a pickle can run any code, so only what these files consist of is
loaded: numbers, texts, lists, dicts, and uint8 arrays.
"""

import io
import pathlib
import pickle
import re

import numpy as np
from PIL import Image

SIDE = 32


class PickledType:
    """The type of the numbers of a pickled array; only uint8 is known."""

    def __init__(self, code, *_):
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it has an array of {code!r}; expected uint8")

    def __setstate__(self, state) -> None:
        pass  # the order of bytes, of which there is one


class PickledArray:
    """A pickled array; NumPy gets its bytes and its shape alone."""

    def __init__(self, *_):
        self.values = np.zeros(0, np.uint8)

    def __setstate__(self, state) -> None:
        _, shape, _, by_column, content = state
        order = "F" if by_column else "C"
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class ArraysOnly(pickle.Unpickler):
    """An unpickler that creates uint8 arrays and Python's own types, and refuses all else."""

    def find_class(self, module: str, name: str) -> type:
        of_numpy = module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        if of_numpy and name in ("_reconstruct", "ndarray"):
            return PickledArray
        if of_numpy and name == "dtype":
            return PickledType
        raise pickle.UnpicklingError(
            f"it refers to {module}.{name}; expected arrays, lists, dicts and texts alone"
        )


def read(path: pathlib.Path, *keys: bytes) -> list:
    """Reads entries of a CIFAR file.

    Args:
        path: the file: a pickled dict whose keys are bytes.
        keys: the entries to return.

    Raises:
        ValueError: the file is no such pickle, or an entry is missing.
    """
    try:
        content = ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return [content[key] for key in keys]
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises many types
        raise ValueError(
            f"'{path}' is not a file of CIFAR's python version: {error!r}. Extract the archive "
            "anew, and name the folder that was in it."
        ) from error


def images_of(array: PickledArray) -> np.ndarray:
    """Returns images (n, 32, 32, 3), uint8, from rows of red, green and blue values.

    Raises:
        ValueError: the rows have another length.
    """
    values = array.values
    if values.ndim != 2 or values.shape[1] != 3 * SIDE * SIDE:
        raise ValueError(
            f"The pixels have the shape {values.shape}; expected (n, {3 * SIDE * SIDE}), as in "
            "the python version of CIFAR."
        )
    return values.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def texts(names: list[bytes]) -> list[str]:
    """Returns names of classes, which become names of folders.

    Raises:
        ValueError: one could lead out of its folder.
    """
    found = [name.decode() for name in names]
    for name in found:
        if not re.fullmatch(r"\w[\w-]*", name):
            raise ValueError(
                f"The class {name!r} cannot be a folder; expected letters, '_' or '-'."
            )
    return found


def check_target(target: pathlib.Path, classes: dict[str, list[str]]) -> None:
    """Refuses a folder with tasks of another split.

    Args:
        target: the folder of the tasks; it need not exist.
        classes: names of the classes of every task that is to be written there.

    Raises:
        ValueError: it has another task, or one of these with another class.
    """
    for task in sorted(target.iterdir()) if target.is_dir() else ():
        if not task.is_dir():
            continue
        known = classes.get(task.name)
        found = {path.name for path in task.glob("*/*") if path.is_dir()}
        if known is None or not found <= set(known):
            what = "is no task" if known is None else "has other classes than the task"
            raise ValueError(
                f"'{task}' {what} of these {len(classes)}. Name another folder, or remove it."
            )


def write(pixels: np.ndarray, folder: pathlib.Path, number: int) -> None:
    """Writes an image to `<number>.png` in a folder.

    Args:
        pixels: uint8, (height, width) or (height, width, 3).
        folder: the folder, which is made.
        number: the number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{number:05}.png")
