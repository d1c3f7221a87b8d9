"""Writes the tasks of 5-Datasets as folders of PNG files, those of them that are there.

  python examples/streams/five_datasets.py DATA TASKS

DATA has, as their archives have them:

  cifar-10-batches-py/   data_batch_1 ... data_batch_5, test_batch, batches.meta
  mnist/                 train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., also as .gz
  fashion-mnist/         the same names
  svhn/                  train_32x32.mat, test_32x32.mat
  notMNIST_small/        A/ ... J/ with PNG files, of which every tenth becomes a test image

TASKS gets `<task>/{train,test}/<class>/<number>.png` for cifar10, mnist, fashion_mnist, svhn and
notmnist. `packnet train` and `packnet compare` take validation images from the training images.
"""

import argparse
import gzip
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import scipy.io
from PIL import Image
from stream_files import images_of, read, texts, write

Labelled = Iterator[tuple[str, str, np.ndarray]]  # split, class, pixels (height, width[, 3])
HEADERS = {3: b"\0\0\x08\x03", 1: b"\0\0\x08\x01"}  # of IDX files of bytes, by number of axes
GARMENTS = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
DIGITS = tuple("0123456789")


def read_idx(path: pathlib.Path, axes: int) -> np.ndarray:
    """Reads an IDX file of bytes, or its compressed form.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: it is another file, or is cut off.
    """
    pressed = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress(pressed.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"'{pressed}' is damaged or cut off: {error}.") from error
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if content[:4] != HEADERS[axes] or len(content) - start != np.prod(shape, dtype=np.int64):
        raise ValueError(
            f"'{path}' is not an IDX file of bytes with {axes} axes, or it is cut off."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def idx_images(folder: pathlib.Path, names: tuple[str, ...]) -> Labelled:
    """Yields the images of MNIST, or of a data set in its format."""
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte", 3)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte", 1)
        for label, pixels in zip(labels, images, strict=True):
            yield split, names[label], pixels


def cifar10(folder: pathlib.Path) -> Labelled:
    """Yields the images of CIFAR-10."""
    [names] = read(folder / "batches.meta", b"label_names")
    classes = texts(names)
    batches = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
    for name, split in batches.items():
        data, labels = read(folder / name, b"data", b"labels")
        for label, pixels in zip(labels, images_of(data), strict=True):
            yield split, classes[label], pixels


def svhn(folder: pathlib.Path) -> Labelled:
    """Yields the digits of SVHN, in which the label 10 means 0."""
    for split in ("train", "test"):
        content = scipy.io.loadmat(folder / f"{split}_32x32.mat")
        for place, label in enumerate(content["y"].ravel()):
            yield split, DIGITS[label % 10], content["X"][..., place]


def notmnist(folder: pathlib.Path) -> Labelled:
    """Yields the letters of notMNIST; a few of its files cannot be read, and are left out."""
    for letter in "ABCDEFGHIJ":
        for place, path in enumerate(sorted((folder / letter).iterdir())):
            try:
                pixels = np.array(Image.open(path).convert("L"))
            except OSError:
                continue
            yield "test" if place % 10 == 9 else "train", letter, pixels


SOURCES: dict[str, tuple[str, Callable[[pathlib.Path], Labelled]]] = {
    "cifar10": ("cifar-10-batches-py", cifar10),
    "mnist": ("mnist", lambda folder: idx_images(folder, DIGITS)),
    "svhn": ("svhn", svhn),
    "fashion_mnist": ("fashion-mnist", lambda folder: idx_images(folder, GARMENTS)),
    "notmnist": ("notMNIST_small", notmnist),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Writes the tasks of 5-Datasets as folders.")
    parser.add_argument("source", type=pathlib.Path, help="the folder with the data sets")
    parser.add_argument("target", type=pathlib.Path, help="folder for the tasks")
    given = parser.parse_args(arguments)
    found = {
        task: source for task, source in SOURCES.items() if (given.source / source[0]).is_dir()
    }
    if not found:
        names = ", ".join(folder for folder, _ in SOURCES.values())
        print(f"'{given.source}' has none of the folders {names}.", file=sys.stderr)
        return 1
    for task, (folder, images) in found.items():
        counts = {"train": 0, "test": 0}
        try:
            for number, (split, name, pixels) in enumerate(images(given.source / folder)):
                write(pixels, given.target / task / split / name, number)
                counts[split] += 1
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
        except (KeyError, IndexError) as error:
            print(
                f"'{given.source / folder}' has other entries or labels: {error!r}.",
                file=sys.stderr,
            )
            return 1
        print(f"{task}: {counts['train']:,} training images, {counts['test']:,} test images")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
