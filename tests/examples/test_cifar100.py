"""CIFAR-100's own files as folders: a tiny file of the same format, and one that is a trap."""

import pathlib
import pickle
import runpy
import struct
import typing

import numpy as np
import pytest
from PIL import Image

from packnet_tf.apps.images.folders import read_folder

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "cifar100_superclasses.py"
SPACE = runpy.run_path(str(SCRIPT))
main, read = SPACE["main"], SPACE["read"]


class Python2Pickler(pickle._Pickler):
    """Writes texts and bytes as Python 2 did, and arrays as its NumPy did."""

    dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        content = value if isinstance(value, bytes) else value.encode()
        short = len(content) < 256
        self.write(
            b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))
        )
        self.write(content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_text


def write_pickle(path, content):
    with open(path, "wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))


def write_cifar(folder):
    """Two images of each class for training and one for testing, of random pixels."""
    folder.mkdir()
    coarse = [f"super-{place:02}" for place in range(20)]
    fine = [f"class_{place:02}" for place in range(40)]
    write_pickle(folder / "meta", {"fine_label_names": fine, "coarse_label_names": coarse})
    rows = {}
    for seed, (split, each) in enumerate({"train": 2, "test": 1}.items()):
        labels = list(range(40)) * each
        rows[split] = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
        content = {
            "data": rows[split],
            "fine_labels": labels,
            "coarse_labels": [label // 2 for label in labels],
            "filenames": ["x.png"] * len(labels),
            "batch_label": "batch 1 of 1",
        }
        write_pickle(folder / split, content)
    return rows


@pytest.mark.parametrize("count", [20, 10])
def test_every_image_lies_in_the_folder_of_its_task_and_class_with_its_pixels(tmp_path, count):
    rows = write_cifar(tmp_path / "cifar")
    assert main([str(tmp_path / "cifar"), str(tmp_path / "tasks"), f"--count={count}"]) == 0
    tasks = sorted(path.name for path in (tmp_path / "tasks").iterdir())
    assert len(tasks) == count
    assert tasks[1] == ("super-01" if count == 20 else "super-02_and_super-03")
    files = read_folder(str(tmp_path / "tasks" / tasks[1]), 0.5)
    assert len(files.classes) == 40 // count
    assert len(files.files["test"]) == 40 // count
    first = 40 // count  # the first class of the second task
    path = tmp_path / "tasks" / tasks[1] / "train" / f"class_{first:02}" / f"{first:05}.png"
    pixels = np.array(Image.open(path))
    red, green, blue = rows["train"][first].reshape(3, 32, 32)
    assert np.array_equal(pixels, np.stack([red, green, blue], -1))


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, capsys):
    write_cifar(tmp_path / "cifar")

    class Trap:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    (tmp_path / "cifar" / "meta").write_bytes(pickle.dumps({b"fine_label_names": Trap()}))
    assert main([str(tmp_path / "cifar"), str(tmp_path / "tasks")]) == 1
    assert "meta' is not a file of CIFAR-100's python version" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"data": np.zeros(3)}, "expected uint8"),
        ({"data": np.array([{}])}, "expected uint8"),
        ({"label": 1}, "KeyError"),
    ],
)
def test_what_is_no_array_of_pixels_is_refused(tmp_path, content, text):
    write_pickle(tmp_path / "train", content)
    with pytest.raises(ValueError, match=text):
        read(tmp_path / "train", b"data")


def test_names_cannot_lead_out_of_the_folder(tmp_path, capsys):
    write_cifar(tmp_path / "cifar")
    names = {"fine_label_names": ["../../out"] * 40, "coarse_label_names": ["a"] * 20}
    write_pickle(tmp_path / "cifar" / "meta", names)
    assert main([str(tmp_path / "cifar"), str(tmp_path / "tasks")]) == 1
    assert "'../../out' cannot be a folder" in capsys.readouterr().err
