"""The device side, on a device of its own: a Python environment without Keras and TensorFlow."""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv

import keras
import numpy as np
import pytest
from PIL import Image

import packnet_tf
from helpers.image_folders import write_task
from helpers.onnx_files import softmax, write_model, write_picture, write_shape_model
from helpers.pack_helpers import jolt, logits

ROOT = pathlib.Path(packnet_tf.__file__).parent.parent
EDGE = ROOT / "examples" / "edge"
CLASSES = ["tulip", "rosé", "daisy 🌼"]


def run(*command, **options):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )


def classify(python, *arguments):
    return run(python, EDGE / "classify.py", *arguments)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The python of a new environment with onnxruntime, numpy and pillow, of the versions here."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=True)
    [python] = folder.glob("bin/python")
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "absl-py")}
    for name in ("onnxruntime", "onnxruntime-gpu"):  # one of them is installed here
        try:
            versions["onnxruntime"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    done = run(python, "-m", "pip", "install", "--quiet", *wanted)
    if done.returncode != 0:
        pytest.skip(f"pip finds no packages here: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def net():
    """A pack with the task `flowers`, for RGB pictures of 12 x 10 pixels from -1 to 1."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 10, 3), name="image")
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    net = packnet_tf.PackNet(keras.Model(inputs, keras.layers.Flatten()(x), name="trunk"))
    net.notes["pixel_range"] = "-1,1"
    model = net.add_task("flowers", keras.layers.Dense(3), classes=CLASSES)
    jolt(model, scale=0.3)
    net.prune(0.5)
    net.commit()
    return net


@pytest.fixture
def picture(tmp_path):
    """A picture of the trunk's size: nothing is resized, so what Keras says is exact."""
    pixels = np.random.default_rng(5).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def answer_of_keras(net, picture):
    """What the view of the task says of a picture, as the example prints it."""
    image = np.asarray(Image.open(picture), np.float32)[None] / 255 * 2 - 1
    chances = softmax(logits(net.task_model("flowers"), image)[0])
    best = int(np.argmax(chances))
    return f"{CLASSES[best]} {chances[best]:.1%}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"outputs": "probabilities"},
        {"outputs": "top_k", "top_k": 2},
        {"channel_order": "bgr"},
    ],
)
def test_an_exported_file_answers_on_the_device_as_keras_does(
    options, device, net, picture, tmp_path
):
    from packnet_tf.export import export_onnx

    export_onnx(net, "flowers", tmp_path / "m.onnx", preprocessing="uint8", **options)
    done = classify(device, tmp_path / "m.onnx", picture)
    assert (done.stdout, done.stderr) == (answer_of_keras(net, picture), "")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tensorflow", "keras", "onnx", "packnet_tf"])
def test_the_device_has_nothing_of_what_trained(module, device):
    done = run(device, "-I", "-c", f"import {module}")
    assert f"ModuleNotFoundError: No module named '{module}'" in done.stderr


@pytest.mark.slow
def test_the_ten_lines_of_the_page_run(device, net, picture, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "guides" / "device.md").read_text(encoding="utf-8")
    at_the_desk, on_the_device = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    lines = [line for line in (at_the_desk + on_the_device).splitlines() if line]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) <= 10
    monkeypatch.chdir(tmp_path)
    net.save("garden.keras")
    Image.open(picture).save("photo.jpg", quality=100, subsampling=0)
    exec(at_the_desk, {})
    done = run(device, "-c", on_the_device)
    name, chance = answer_of_keras(net, tmp_path / "photo.jpg").rsplit(" ", 1)
    found, number = done.stdout.rsplit(" ", 1)
    assert (found, f"{float(number):.1%}\n") == (name, chance)


@pytest.mark.slow
def test_the_commands_run_on_the_device_without_dependencies(device, tmp_path):
    source, target = tmp_path / "source", tmp_path / "installed"
    for name in ("packnet_tf", "apps", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", f"--target={target}", source]
    done = run(device, *install)
    assert done.returncode == 0, done.stderr
    model = write_model(tmp_path / "m.onnx", task="colours", classes=("dark", "light"),
                        matrix=[[0, 1]] * 3)  # fmt: skip
    data = write_task(tmp_path / "shades")
    packnet = [device, "-m", "packnet_tf.apps"]
    there = {"env": {**os.environ, "PYTHONPATH": str(target)}, "cwd": tmp_path}
    done = run(*packnet, "predict", f"--model={model}", "--json", data / "test" / "dark", **there)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["models"][0]["top"][0]["name"] for answer in answers] == ["light"] * 6
    done = run(*packnet, "evaluate", f"--model={model}", f"--data={data}", "--json", **there)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 0.5
    done = run(*packnet, "--version", **there)
    assert done.stdout == f"packnet_tf {packnet_tf.__version__}\n"


# On this machine


@pytest.mark.parametrize("output", ["logits", "probabilities", "top"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_python_example_takes_every_form_of_file(output, order, tmp_path):
    matrix = np.eye(3) / 100
    model = write_model(tmp_path / "m.onnx", output, matrix=matrix, channel_order=order)
    picture = write_picture(tmp_path / "p.png", (100, 0, 0))
    done = classify(sys.executable, model, picture)
    first = {"rgb": "red", "bgr": "blue"}[order]  # e / (e + 2)
    assert (done.stdout, done.stderr) == (f"{first} 57.6%\n", "")


def test_the_python_example_turns_pictures_upright_and_does_without_names(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    lying = write_picture(tmp_path / "lying.jpg", (9, 9, 9), size=(9, 4))
    standing = write_picture(tmp_path / "standing.jpg", (9, 9, 9), size=(9, 4), exif=turned)
    model = write_shape_model(tmp_path / "m.onnx")
    assert classify(sys.executable, model, lying).stdout == "wide 99.3%\n"
    assert classify(sys.executable, model, standing).stdout == "tall 99.3%\n"
    model = write_model(tmp_path / "m.onnx", classes=None)
    assert classify(sys.executable, model, lying).stdout == "class 0 33.3%\n"


def test_the_python_example_shows_grey_pictures_to_a_network_of_them(tmp_path):
    model = write_model(tmp_path / "m.onnx", channels=1, matrix=[[0.1, 0.0, -0.1]])
    picture = tmp_path / "p.png"
    Image.fromarray(np.full((5, 4, 3), 200, np.uint8)).save(picture)
    assert classify(sys.executable, model, picture).stdout == "red 100.0%\n"


def test_the_python_example_keeps_the_levels_of_sixteen_bits(tmp_path):
    model = write_model(tmp_path / "m.onnx", channels=1, matrix=[[0.0, 0.01, 0.02]])
    picture = tmp_path / "p.png"
    answers = []
    for pixels in (np.uint8(3), np.uint16(3 * 257)):
        Image.fromarray(np.full((5, 4), pixels)).save(picture)
        answers.append(classify(sys.executable, model, picture).stdout)
    assert answers[0] == answers[1]


def test_the_python_example_is_short_and_needs_three_packages():
    text = (EDGE / "classify.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    imported = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
    assert imported == ["json", "sys", "numpy", "onnxruntime", "PIL"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The C++ example, built where ONNXRUNTIME_DIR names a release of onnxruntime."""
    release = os.environ.get("ONNXRUNTIME_DIR")
    if not release or not shutil.which("cmake"):
        pytest.skip("needs cmake, and ONNXRUNTIME_DIR=<an unpacked release of onnxruntime>")
    build = tmp_path_factory.mktemp("build")
    for command in (
        ["cmake", "-S", EDGE, "-B", build, f"-DONNXRUNTIME_DIR={release}"],
        ["cmake", "--build", build],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    return build / "classify"


@pytest.mark.slow
@pytest.mark.parametrize("output", ["logits", "probabilities", "top"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_cpp_example_takes_every_form_of_file(output, order, program, tmp_path):
    names = ('ré"d', "green\\", "blüe 🌼")  # escaped in JSON
    picture = write_picture(tmp_path / "p.ppm", (100, 0, 0), size=(4, 3))
    raw = tmp_path / "p.rgb"
    raw.write_bytes(np.asarray(Image.open(picture)).tobytes())
    model = write_model(
        tmp_path / "m.onnx", output, matrix=np.eye(3) / 100, channel_order=order, classes=names
    )
    expected = f"{names[0 if order == 'rgb' else 2]} 57.6%\n"
    for arguments in ([picture], [raw, 4, 3]):
        done = run(program, model, *arguments)
        assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.slow
def test_the_cpp_example_says_what_it_cannot_read(program, tmp_path):
    model = write_model(tmp_path / "m.onnx")
    picture = write_picture(tmp_path / "p.png", (100, 0, 0))
    for arguments, text in [
        ([picture], "is not a binary PPM (P6) of 8 bits a channel; for raw RGB bytes add the"),
        ([picture, 4, 3], "bytes of pixels, expected height x width x 3 = 36"),
        ([picture, "wide", 3], "a width and a height are whole numbers from 1; got 'wide'"),
        (["gone.ppm"], "there is no picture 'gone.ppm'"),
    ]:
        done = run(program, model, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr
    assert run(program).returncode == 2
