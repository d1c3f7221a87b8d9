"""`packnet train`, `export`, `predict` and `report`, on small made-up images."""

import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from image_folders import write_task, write_trunk

import packnet_tf
from pack_helpers import owners
from packnet_tf.apps.training import Plan, cosine, train

SHORT = {"epochs": 3, "prune_epoch": 2, "batch_size": 8, "learning_rate": 0.05}


@pytest.fixture
def place(tmp_path):
    write_task(tmp_path / "shades")
    write_task(tmp_path / "greys", classes=("a", "b", "c"), seed=1, test=False)
    write_trunk(tmp_path / "small.keras")
    return tmp_path


def plan(place, task="shades", **changes):
    settings = {"trunk": str(place / "small.keras"), "trunk_output": "features", **SHORT}
    settings |= {"data": str(place / task), **changes}
    return Plan(pack=str(place / "pack.keras"), task=task, **settings)


def packnet(*arguments, folder):
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "packnet_tf.apps", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_whole_way_by_command_line(place):
    first = packnet(
        "train", "--pack=garden.keras", "--task=shades", "--data=shades", "--epochs=3",
        "--trunk=small.keras", "--trunk_output=features", "--prune_epoch=2", "--prune_ratio=0.5",
        "--learning_rate=0.05", "--batch_size=8", "--flip", folder=place,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert re.search(r"accuracy, before the prune +\d+\.\d%", first.stdout)
    assert re.search(r"capacity left +50\.0%", first.stdout)
    assert "oneDNN" not in first.stdout + first.stderr
    second = packnet(
        "train", "--pack=garden.keras", "--task=greys", "--data=greys", "--prune_ratio=0",
        "--epochs=2", "--prune_epoch=1", folder=place,
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert not list(place.glob("*.progress"))

    exported = packnet("export", "--pack=garden.keras", "--output=onnx", folder=place)
    assert exported.returncode == 0, exported.stderr
    manifest = json.loads((place / "onnx" / "manifest.json").read_text())
    assert [task["classes"] for task in manifest["tasks"]] == [["dark", "light"], ["a", "b", "c"]]

    image = place / "shades" / "test" / "light" / "00.png"
    found = packnet("predict", "--model=onnx/model_task1.onnx", "--top=2", image, folder=place)
    assert found.returncode == 0, found.stderr
    shares = dict(re.findall(r"(dark|light) (\d+\.\d)%", found.stdout))
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.1)

    shown = packnet("report", "--pack=garden.keras", folder=place)
    assert shown.returncode == 0, shown.stderr
    assert "garden.keras: 2 tasks; biases shared, norms per_task" in shown.stdout
    assert "dark, light" in shown.stdout
    assert "own values and head of greys" in shown.stdout
    assert (place / "garden.png").stat().st_size > 10_000


def test_the_reported_accuracy_is_that_of_the_exported_file(place):
    from packnet_tf.apps.folders import read_folder
    from packnet_tf.apps.predict import Classifier
    from packnet_tf.export import export_onnx

    report = train(plan(place))
    net = packnet_tf.load(place / "pack.keras")
    export_onnx(net, "shades", place / "m.onnx")
    classifier = Classifier(str(place / "m.onnx"), None, 224)
    files = read_folder(place / "shades").files["test"]
    right = [classifier.probabilities(path).argmax() == label for path, label in files]
    assert report.accuracy["test"] == pytest.approx(np.mean(right), abs=1e-6)
    assert set(report.accuracy) == {"before the prune", "after it", "retrained", "test"}
    assert classifier.task == "shades"


@pytest.mark.slow
def test_a_killed_run_continues_where_it_was(place):
    train(plan(place, epochs=4))
    whole = owners(packnet_tf.load(place / "pack.keras"))
    (place / "pack.keras").unlink()
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from packnet_tf.apps import training
import test_train, pathlib, os
die_at, cosine = int(sys.argv[1]), training.cosine
calls = []
def die(*arguments):
    calls.append(arguments)
    if len(calls) > die_at:
        os._exit(99)
    return cosine(*arguments)
training.cosine = die
training.train(test_train.plan(pathlib.Path({str(place)!r}), epochs=4))
"""
    for die_at in ("2", "3"):  # rates asked for: at compiling, then in every epoch
        done = subprocess.run(
            [sys.executable, "-c", code, die_at], capture_output=True, check=False
        )
        assert done.returncode == 99, done.stderr.decode()
        assert not (place / "pack.keras").exists()
        assert (place / "pack.keras.progress" / "checkpoint.npz").exists()
    report = train(plan(place, epochs=4))
    assert set(report.accuracy) == {"before the prune", "after it", "retrained", "test"}
    found = owners(packnet_tf.load(place / "pack.keras"))
    for path, owner in whole.items():
        assert np.array_equal(owner, found[path])
    assert not list(place.glob("*.progress"))


def test_continuing_with_other_settings_is_refused(place):
    (place / "pack.keras.progress").mkdir()
    note = place / "pack.keras.progress" / "settings.json"
    note.write_text(json.dumps({"task": "shades", "data": str(place / "shades"), "trunk": "x"}))
    text = "had --trunk=x, this one has --trunk=.*Repeat the old command .* or add --fresh"
    with pytest.raises(ValueError, match=text):
        train(plan(place))
    train(plan(place, fresh=True, epochs=1, prune_epoch=0))
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)


def test_unreadable_images_are_counted_and_named_at_the_end(place):
    broken = place / "shades" / "train" / "dark" / "03.png"
    broken.write_bytes(b"no image")
    text = str(train(plan(place, epochs=1, prune_epoch=0)))
    assert re.search(r"unreadable images, skipped +1\n", text)
    assert f"Skipped: '{broken}' is not a readable image" in text


def test_a_task_name_that_is_a_path_touches_no_folder(place):
    data = str(place / "shades")
    before = sorted(place.rglob("*"))
    for task in (data, "../shades", ""):
        with pytest.raises(ValueError, match="usable as a file name"):
            train(plan(place, fresh=True, data=data, task=task))
    assert sorted(place.rglob("*")) == before


def test_packs_made_in_python_say_their_pixel_range_or_are_refused(place):
    trunk = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    net = packnet_tf.PackNet(trunk)
    net.save(place / "pack.keras")
    with pytest.raises(ValueError, match="does not say which pixel values its trunk takes"):
        train(plan(place, epochs=1, prune_epoch=0))
    net.notes["pixel_range"] = "0,1"
    net.save(place / "pack.keras")
    train(plan(place, epochs=1, prune_epoch=0))
    flat = packnet_tf.PackNet(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    flat.save(place / "pack.keras")
    with pytest.raises(ValueError, match=r"takes \(None, 4\) and gives \(None, 2\); expected"):
        train(plan(place))


def test_a_policy_other_than_the_packs_is_refused(place):
    train(plan(place, epochs=1, prune_epoch=0))
    with pytest.raises(ValueError, match="made with --norms=per_task, which holds for all its"):
        train(plan(place, task="greys", norms="shared"))


def test_a_task_of_the_same_name_and_a_missing_trunk_are_errors(place):
    with pytest.raises(ValueError, match=r"no pack .*and no trunk.*Add --trunk=FILE.keras"):
        train(plan(place, trunk=None))
    train(plan(place, epochs=1, prune_epoch=0))
    with pytest.raises(ValueError, match=r"has a task 'shades' already\. Choose another name"):
        train(plan(place))


def test_predict_does_not_import_tensorflow_or_keras(place):
    from packnet_tf.export import export_onnx

    train(plan(place, epochs=1, prune_epoch=0))
    export_onnx(packnet_tf.load(place / "pack.keras"), "shades", place / "m.onnx")
    image = place / "shades" / "test" / "dark" / "00.png"
    code = (
        "import sys; from packnet_tf.apps.main import main\n"
        f"status = main(['predict', '--model={place / 'm.onnx'}', {str(image)!r}])\n"
        "assert not {'tensorflow', 'keras', 'tf2onnx', 'onnx'} & set(sys.modules), 'imported'\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{image}: ")


def test_predict_names_what_it_cannot_read(place, capsys):
    from packnet_tf.apps.main import main
    from packnet_tf.export import export_onnx

    train(plan(place, epochs=1, prune_epoch=0))
    net = packnet_tf.load(place / "pack.keras")
    export_onnx(net, "shades", place / "m.onnx")
    (place / "bad.png").write_bytes(b"no image")
    assert main(["predict", f"--model={place / 'm.onnx'}", str(place / "bad.png")]) == 1
    capsys.readouterr()
    assert main(["predict", f"--model={place / 'bad.png'}", str(place / "bad.png")]) == 1
    assert "is not a model that onnxruntime can read" in capsys.readouterr().err
    assert main(["predict", "--model=nowhere.onnx", str(place / "bad.png")]) == 1
    assert "There is no model 'nowhere.onnx'. packnet export wr" in capsys.readouterr().err
    net.notes.clear()
    export_onnx(net, "shades", place / "m.onnx")
    assert main(["predict", f"--model={place / 'm.onnx'}", str(place / "bad.png")]) == 2


def test_rates_fall_to_a_tenth_along_a_cosine():
    rates = [cosine(epoch, 5, 1.0) for epoch in range(5)]
    assert rates[0] == 1.0
    assert rates[2] == pytest.approx(0.55)
    assert rates[4] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert cosine(0, 1, 1.0) == 1.0
