"""The README's twelve lines from folders of images to a device run as they stand."""

import os
import pathlib
import re
import shutil
import subprocess
import sysconfig

import keras
import numpy as np
import pytest
from PIL import Image

import packnet_tf

ROOT = pathlib.Path(packnet_tf.__file__).parent.parent
SOURCES = ("packnet_tf", "export", "apps", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TASKS = {"flowers": ["rose", "tulip"], "leaves": ["birch", "maple", "oak"]}


def lines():
    """The twelve lines, as the README has them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = [b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "--for=edge" in b]
    return block.splitlines()


def write_photo(path, hue, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 80, (64, 80, 3)) + np.array(hue)
    Image.fromarray(pixels.astype("uint8")).save(path, quality=90)


def write_photos(folder):
    """Writes photographs of two tasks, one of them with a folder of test images."""
    rng = np.random.default_rng(0)
    hues = [(0, 0, 160), (160, 0, 0), (0, 160, 0)]
    for task, classes in TASKS.items():
        for name, hue in zip(classes, hues, strict=False):
            parts = {"train": 8, "test": 3} if task == "leaves" else {"": 8}
            for part, count in parts.items():
                for number in range(count):
                    write_photo(folder / task / part / name / f"{number}.jpg", hue, rng)


def write_weights(home):
    """Puts weights where Keras caches those that it downloads; they are random."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    for variable in model.weights:
        if variable.name in ("gamma", "beta"):  # a trained network has moved them
            variable.assign(variable + keras.random.normal(variable.shape, stddev=0.1, seed=1))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(keras.random.uniform((32, 96, 96, 3), -1, 1, seed=2), training=True)  # and its statistics
    (home / "models").mkdir(parents=True)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    model.save(home / "models" / name)  # the format of Keras's downloads, and the architecture


def run(script, folder, **environment):
    """Runs lines of a shell script; the first that fails ends it, with its number as the status."""
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    text = "".join(f"{line} || exit {number}\n" for number, line in enumerate(script, start=1))
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script[done.returncode - 1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pythons():
    """The Pythons that packnet_tf is for and that this machine has, by version."""
    found = {}
    for minor in (11, 12, 13):
        kept = pathlib.Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")
        for python in (f"python3.{minor}", *kept):
            check = ["-c", f"import ensurepip, sys; sys.exit(sys.version_info[1] != {minor})"]
            try:
                done = subprocess.run([python, *check], capture_output=True, check=False)
            except FileNotFoundError:
                continue
            if done.returncode == 0:
                found[f"3.{minor}"] = str(python)
    return found


@pytest.mark.slow
def test_the_twelve_lines_run_as_they_stand(tmp_path):
    names = ("source", "desk", "device", "tools")
    source, desk, device, tools = (tmp_path / name for name in names)
    for folder in (source, desk, device, tools):
        folder.mkdir()
    for name in SOURCES:  # of a copy: setuptools leaves a build/ in its folder
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    built = "v/bin/pip wheel --quiet --no-deps --wheel-dir wheel ./source"
    # What it stands on is here already; .ci/run installs that from the index.
    here = f"echo {sysconfig.get_path('purelib')} > $(echo v/lib/python3*/site-packages)/here.pth"
    run(["python3 -m venv v", here, built], tmp_path)
    [wheel] = (tmp_path / "wheel").iterdir()
    write_photos(desk / "photos")
    write_weights(tmp_path / "keras")
    write_photo(device / "photo.jpg", (160, 0, 0), np.random.default_rng(1))
    (tools / "scp").write_text(f'#!/bin/sh\n[ "$3" = device: ] && cp "$1" "$2" {device}\n')
    (tools / "scp").chmod(0o755)

    given = lines()
    assert len(given) == 12
    # The wheel has a name of its own until it is on an index.
    given = [
        re.sub(r"packnet_tf(?=\[apps\]'|$)", str(wheel), line) if "pip install" in line else line
        for line in given
    ]
    there = given.index("ssh device")
    path = os.pathsep.join([str(tmp_path / "v" / "bin"), str(tools), os.environ["PATH"]])
    said = run(given[:there], desk, PATH=path, KERAS_HOME=str(tmp_path / "keras"))
    assert "leaves" in said
    assert (desk / "report.html").stat().st_size > 10_000
    kept = sorted(path.name for path in (desk / "garden.keras.runs" / "leaves").iterdir())
    assert kept[0] == "epochs.csv"
    assert kept[1].startswith("events.out.tfevents.")
    assert kept[2:] == ["history.json"]

    said = run([*given[there + 1 :], "! python -c 'import keras' 2> /dev/null"], device)
    table, answer = said[: said.index("photo.jpg")], said.splitlines()[-1]
    assert re.search(r"model_task3\.onnx +leaves ", table)
    assert re.fullmatch(r"photo\.jpg: maple \d+\.\d%, \w+ \d+\.\d%, \w+ \d+\.\d%", answer)

    shutil.copytree(desk / "photos", device / "photos")
    more = [
        *(line for line in given[there + 1 :] if not line.startswith("packnet benchmark")),
        "packnet evaluate onnx/ --task=leaves photos/leaves",
        "packnet train a.keras --task=moss --data=photos/leaves --trunk=MobileNetV2 2>&1 || true",
    ]
    for version, python in pythons().items():
        shutil.rmtree(device / "v")
        said = run([more[0].replace("python3", python, 1), *more[1:]], device)
        assert (device / "v" / "bin" / f"python{version}").exists()
        assert said.splitlines()[-1].startswith(
            "packnet train: This command needs tensorflow: pip "
        )
        assert answer in said.splitlines()
        assert re.search(r"^maple +3 +\d+\.\d%", said, re.M), said
