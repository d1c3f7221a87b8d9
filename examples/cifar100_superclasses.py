"""Writes CIFAR-100 as tasks of its superclasses, folders of PNG files.

  python examples/cifar100_superclasses.py cifar-100-python TASKS
  python examples/cifar100_superclasses.py cifar-100-python TASKS --count=10

`cifar-100-python` is the folder of the archive "CIFAR-100 python version": the files `train`,
`test` and `meta`. TASKS gets `<task>/{train,test}/<class>/<number>.png`: by default 20 tasks, one
of five classes for each superclass; with --count=10, two superclasses in a task, in alphabetical
order.
`packnet train` and `packnet compare` take validation images from the training images.

The files are pickles. Loading a pickle can run any code, so only what these files consist of is
loaded: numbers, texts, lists, dicts, and uint8 arrays.
"""

import argparse
import io
import pathlib
import pickle
import re
import sys

import numpy as np
from PIL import Image

SUPERCLASSES = 20
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
            f"'{path}' is not a file of CIFAR-100's python version: {error!r}. Extract "
            "cifar-100-python.tar.gz anew, and name its folder cifar-100-python."
        ) from error


def task_names(superclasses: list[str], count: int) -> list[str]:
    """Returns the name of every superclass's task.

    Args:
        superclasses: names in alphabetical order.
        count: the number of tasks; it divides the number of superclasses.

    Example:
        >>> task_names(["fish", "flowers", "insects", "people"], 2)
        ['fish_and_flowers', 'fish_and_flowers', 'insects_and_people', 'insects_and_people']
    """
    size = len(superclasses) // count
    names = [
        "_and_".join(superclasses[start : start + size])
        for start in range(0, len(superclasses), size)
    ]
    return [name for name in names for _ in range(size)]


def images_of(array: PickledArray) -> np.ndarray:
    """Returns images (n, 32, 32, 3), uint8, from rows of red, green and blue values.

    Raises:
        ValueError: the rows have another length.
    """
    values = array.values
    if values.ndim != 2 or values.shape[1] != 3 * SIDE * SIDE:
        raise ValueError(
            f"The pixels have the shape {values.shape}; expected (n, {3 * SIDE * SIDE}), as in "
            "CIFAR-100's python version."
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


def write_tasks(source: pathlib.Path, target: pathlib.Path, count: int = SUPERCLASSES) -> list[str]:
    """Writes the folders; returns the names of the tasks."""
    coarse, fine = read(source / "meta", b"coarse_label_names", b"fine_label_names")
    classes, tasks = texts(fine), task_names(texts(coarse), count)
    for split in ("train", "test"):
        data, labels, groups = read(source / split, b"data", b"fine_labels", b"coarse_labels")
        images = zip(images_of(data), labels, groups, strict=True)
        for number, (pixels, label, group) in enumerate(images):
            folder = target / tasks[group] / split / classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:05}.png")
    return list(dict.fromkeys(tasks))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Writes CIFAR-100 as tasks of its superclasses.")
    parser.add_argument("source", type=pathlib.Path, help="the folder cifar-100-python")
    parser.add_argument("target", type=pathlib.Path, help="folder for the tasks")
    parser.add_argument("--count", type=int, default=SUPERCLASSES, choices=(10, SUPERCLASSES))
    given = parser.parse_args(arguments)
    try:
        tasks = write_tasks(given.source, given.target, given.count)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(tasks)} tasks in {given.target}: {', '.join(tasks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
