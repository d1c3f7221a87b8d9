"""Data sets in their own files as folders, tiny ones of the same formats; and networks for them."""

import gzip
import pathlib
import pickle
import runpy
import struct
import typing

import numpy as np
import pytest
import scipy.io
from PIL import Image

from packnet_tf.apps.images.folders import read_folder
from packnet_tf.apps.images.trunks import load_trunk

STREAMS = pathlib.Path(__file__).parents[2] / "examples" / "streams"
SIZES = {"train": 20, "test": 10}  # images of each data set


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch):
    monkeypatch.syspath_prepend(str(STREAMS))


def main(arguments, script="cifar100_superclasses"):
    return runpy.run_path(str(STREAMS / f"{script}.py"))["main"](arguments)


def read(*arguments):
    return runpy.run_path(str(STREAMS / "stream_files.py"))["read"](*arguments)


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
    assert "meta' is not a file of CIFAR's python version" in capsys.readouterr().err
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


# -- TinyImageNet --------------------------------------------------------------------------------


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Six classes, with two images each for training and one in `val`."""
    root, lines = tmp_path / "tiny", []
    (root / "val" / "images").mkdir(parents=True)
    for place in range(6):
        name = f"n0{place}"
        folder = root / "train" / name / "images"
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (place, number, 0)).save(folder / f"{name}_{number}.JPEG")
        file = f"val_{5 - place}.JPEG"
        Image.new("RGB", (8, 8), (place, 9, 0)).save(root / "val" / "images" / file)
        lines.append(f"{file}\t{name}\t0\t0\t8\t8\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet_is_split_by_its_classes(tiny_imagenet, tmp_path, capsys):
    tasks = tmp_path / "tasks"
    for _ in range(2):  # a second time changes nothing
        assert main([str(tiny_imagenet), str(tasks), "--count=3"], "tiny_imagenet") == 0
    assert "3 tasks in" in capsys.readouterr().out
    folder = read_folder(str(tasks / "task_02"), 0.5)
    assert folder.classes == ["n02", "n03"]
    assert len(folder.files["train"]) + len(folder.files["validation"]) == 4
    assert [pathlib.Path(path).name for path, _ in folder.files["test"]] == [
        "val_3.JPEG",
        "val_2.JPEG",
    ]


def test_tasks_of_another_split_are_not_mixed_with_new_ones(tiny_imagenet, tmp_path, capsys):
    tasks = str(tmp_path / "tasks")
    assert main([str(tiny_imagenet), tasks, "--count=2"], "tiny_imagenet") == 0
    before = sorted(pathlib.Path(tasks).rglob("*"))
    for count in (3, 1):
        assert main([str(tiny_imagenet), tasks, f"--count={count}"], "tiny_imagenet") == 1
        assert "Name another folder, or remove it." in capsys.readouterr().err
    assert sorted(pathlib.Path(tasks).rglob("*")) == before
    assert main([str(tiny_imagenet), tasks, "--count=0"], "tiny_imagenet") == 1
    assert "which 0 tasks cannot share" in capsys.readouterr().err


def test_what_is_not_tiny_imagenet_is_refused(tiny_imagenet, tmp_path, capsys):
    tasks = str(tmp_path / "tasks")
    assert main([str(tiny_imagenet), tasks, "--count=4"], "tiny_imagenet") == 1
    assert "has 6 classes, which 4 tasks cannot share equally; expected" in capsys.readouterr().err
    (tiny_imagenet / "val" / "val_annotations.txt").write_text("val_0.JPEG n00\n")
    assert main([str(tiny_imagenet), tasks, "--count=3"], "tiny_imagenet") == 1
    assert "expected FILE, CLASS" in capsys.readouterr().err
    (tiny_imagenet / "val" / "val_annotations.txt").unlink()
    assert main([str(tiny_imagenet), tasks, "--count=3"], "tiny_imagenet") == 1
    assert "val_annotations.txt" in capsys.readouterr().err


# -- 5-Datasets ----------------------------------------------------------------------------------


def pixels_of(rng, split, *shape):
    return rng.integers(0, 256, (SIZES[split], *shape), np.uint8)


def write_idx(path, array, press):
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.tobytes()
    if press:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.fixture
def five(tmp_path):
    """Two images of each class for training, and one for testing, as the archives have them."""
    root, rng = tmp_path / "five", np.random.default_rng(5)
    labels = {split: np.arange(size, dtype=np.uint8) % 10 for split, size in SIZES.items()}
    every = {}
    for name, press in {"mnist": True, "fashion-mnist": False}.items():
        (root / name).mkdir(parents=True)
        for split, prefix in {"train": "train", "test": "t10k"}.items():
            images = every[name, split] = pixels_of(rng, split, 28, 28)
            write_idx(root / name / f"{prefix}-images-idx3-ubyte", images, press)
            write_idx(root / name / f"{prefix}-labels-idx1-ubyte", labels[split], press)
    cifar = root / "cifar-10-batches-py"
    cifar.mkdir()
    write_pickle(cifar / "batches.meta", {"label_names": [f"class{place}" for place in range(10)]})
    batches = {f"data_batch_{number}": slice(4 * number - 4, 4 * number) for number in range(1, 6)}
    for split in SIZES:
        images = every["cifar", split] = pixels_of(rng, split, 3072)
        parts = batches if split == "train" else {"test_batch": slice(None)}
        for name, part in parts.items():
            content = {"data": images[part], "labels": labels[split][part].tolist()}
            write_pickle(cifar / name, content)
    (root / "svhn").mkdir()
    for split in SIZES:
        images = every["svhn", split] = pixels_of(rng, split, 32, 32, 3)
        content = {"X": np.moveaxis(images, 0, -1), "y": labels[split][:, None] + 1}
        scipy.io.savemat(root / "svhn" / f"{split}_32x32.mat", content)
    for letter in "ABCDEFGHIJ":
        folder = root / "notMNIST_small" / letter
        folder.mkdir(parents=True)
        for number in range(10):
            Image.new("L", (28, 28), number).save(folder / f"{number}.png")
        (folder / "0.png").write_bytes(b"damaged, as two of the real ones are")
    return root, every


def test_every_image_of_five_datasets_lies_in_its_folder(five, tmp_path, capsys):
    root, every = five
    tasks = tmp_path / "tasks"
    assert main([str(root), str(tasks)], "five_datasets") == 0
    lines = capsys.readouterr().out.splitlines()
    expected = dict.fromkeys(("cifar10", "mnist", "svhn", "fashion_mnist"), (20, 10))
    expected["notmnist"] = (80, 10)
    assert lines == [
        f"{name}: {train} training images, {test} test images"
        for name, (train, test) in expected.items()
    ]
    for name in expected:
        assert len(read_folder(str(tasks / name), 0.5).classes) == 10

    def pixels(path):
        return np.array(Image.open(tasks / path))

    red, green, blue = every["cifar", "train"][13].reshape(3, 32, 32)
    assert np.array_equal(
        pixels("cifar10/train/class3/00013.png"), np.stack([red, green, blue], -1)
    )
    assert np.array_equal(pixels("mnist/test/4/00024.png"), every["mnist", "test"][4])
    sandal = pixels("fashion_mnist/train/sandal/00005.png")
    assert np.array_equal(sandal, every["fashion-mnist", "train"][5])
    assert np.array_equal(pixels("svhn/train/0/00009.png"), every["svhn", "train"][9])


def test_files_that_are_cut_off_or_missing_are_named(five, tmp_path, capsys):
    root, _ = five
    file = root / "fashion-mnist" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    assert main([str(root), str(tmp_path / "tasks")], "five_datasets") == 1
    assert "is not an IDX file of bytes with 3 axes, or it is cut" in capsys.readouterr().err
    pressed = file.with_name(f"{file.name}.gz")
    pressed.write_bytes(gzip.compress(file.read_bytes())[:-9])
    file.unlink()
    assert main([str(root), str(tmp_path / "tasks")], "five_datasets") == 1
    assert f"'{pressed}' is damaged or cut off" in capsys.readouterr().err
    pressed.unlink()
    assert main([str(root), str(tmp_path / "tasks")], "five_datasets") == 1
    assert "t10k-images-idx3-ubyte" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing"), str(tmp_path / "tasks")], "five_datasets") == 1
    assert "has none of the folders cifar-10-batches-py, mnist, svhn" in capsys.readouterr().err


# -- the papers' networks ------------------------------------------------------------------------

# Weights of the papers' own width, from their layers by hand; those of normalisation included.
PAPER = {
    "lenet": (32, 500, 3 * 25 * 20 + 20 * 25 * 50 + 8 * 8 * 50 * 800 + 800 * 500),
    "alexnet": (32, 2048, 3 * 16 * 64 + 64 * 9 * 128 + 128 * 4 * 256 + 4 * 256 * 2048 + 2048**2),
    "conv4": (64, 640, 3 * 9 * 160 + 3 * 160 * 9 * 160 + 16 * 160 * 640 + 640**2),
    "vgg16_bn": (32, 4096, 14_710_464 + 4 * 4224 + 513 * 4096 + 4097 * 4096),
    "resnet18": (32, 160, 1_090_140 + 4 * 1500),
}


def network(name, **options):
    return runpy.run_path(str(STREAMS / "networks.py"))["build"](name, **options)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_networks_have_their_layers(name):
    side, features, weights = PAPER[name]
    model = network(name, width=1)
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, features)
    assert model.count_params() == weights


def test_the_networks_are_narrow_unless_told_otherwise(tmp_path, capsys):
    paths = [tmp_path / f"{name}.keras" for name in ("narrow", "wide", "new/other")]
    options = [], ["--paper"], ["--width=2", "--seed=1"]
    for path, more in zip(paths, options, strict=True):
        assert main(["resnet18", str(path), *more], "networks") == 0
    narrow, wide, other = (load_trunk(str(path), scale="unit") for path in paths)
    assert [model.output_shape[-1] for model in (narrow, wide, other)] == [80, 160, 320]
    assert "0.5 of the paper's width, 275,670 weights" in capsys.readouterr().out
    assert main(["lenet", str(tmp_path / "no.keras"), "--width=0"], "networks") == 1
    assert "--width is 0; expected a positive share" in capsys.readouterr().err
    assert main(["lenet", str(tmp_path / "lenet.h5")], "networks") == 1
    assert "is to be a Keras model; write lenet.keras." in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"narrow.keras", "wide.keras", "new"}


def test_weights_are_drawn_from_the_seed():
    first, again, other = (network("lenet", width=0.1, seed=seed) for seed in (0, 0, 1))
    kernels = [model.get_weights()[0] for model in (first, again, other)]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
