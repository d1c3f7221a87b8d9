"""`packnet train`, `export`, `predict` and `report`, on small made-up images."""

import collections
import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.image_folders import task_plan, write_place
from helpers.pack_helpers import packed_layers
from packnet_tf.apps.images.folders import read_folder
from packnet_tf.apps.main import main
from packnet_tf.apps.packs.training import train


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """Such a folder with a pack of the first task, and the report."""
    keras.utils.set_random_seed(7)  # as every test has it, for the trunk
    folder = write_place(tmp_path_factory.mktemp("trained"))
    return folder, train(task_plan(folder))


@pytest.fixture
def trained(trained_once, tmp_path):
    """A copy of the folder."""
    return shutil.copytree(trained_once[0], tmp_path / "trained")


def packnet(*arguments, folder):
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "packnet_tf.apps", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_whole_way_by_command_line(place, monkeypatch, capsys):
    first = packnet(
        "train", "--pack=garden.keras", "--task=shades", "--data=shades", "--epochs=3",
        "--trunk=small.keras", "--trunk_output=features", "--prune_epoch=2", "--prune_ratio=0.5",
        "--learning_rate=0.05", "--batch_size=8", "--flip", folder=place,
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert re.search(r"accuracy, before the prune +\d+\.\d%", first.stdout)
    assert re.search(r"capacity left +50\.0%", first.stdout)
    assert "oneDNN" not in first.stdout + first.stderr
    monkeypatch.chdir(place)  # the other commands in this process: starting takes seconds
    second = "train --pack=garden.keras --task=greys --data=greys --prune_ratio=0 --epochs=2"
    assert main([*second.split(), "--prune_epoch=1"]) == 0
    assert not list(place.glob("*.progress"))

    assert main(["export", "--pack=garden.keras", "--output=onnx"]) == 0
    manifest = json.loads((place / "onnx" / "manifest.json").read_text())
    assert [task["classes"] for task in manifest["tasks"]] == [["dark", "light"], ["a", "b", "c"]]

    image = place / "shades" / "test" / "light" / "00.png"
    found = packnet("predict", "--model=onnx/model_task1.onnx", "--top=2", image, folder=place)
    assert found.returncode == 0, found.stderr
    shares = dict(re.findall(r"(dark|light) (\d+\.\d)%", found.stdout))
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.1)

    capsys.readouterr()
    assert main(["report", "--pack=garden.keras"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("garden.keras holds 2 tasks in ")
    assert "pixel values 0 to 255." in shown
    assert re.search(r"^\[1+2+\.*\]$", shown, re.MULTILINE)
    assert len(re.findall(r"^[12] +(shades|greys) +[23] ", shown, re.MULTILINE)) == 2
    assert "conv1" not in shown
    assert (place / "garden.png").stat().st_size > 10_000
    assert main(["report", "garden.keras", "--layers", "--picture=none"]) == 0
    assert "conv1" in capsys.readouterr().out
    assert main(["report", "garden.keras", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [task["task"] for task in found["tasks"]] == ["shades", "greys"]
    assert found["tasks"][0]["classes"] == ["dark", "light"]
    assert 0 < found["tasks"][0]["owns"] < 1
    assert found["bytes"] == (place / "garden.keras").stat().st_size


def test_the_reported_accuracy_is_that_of_the_exported_file(trained_once, tmp_path):
    from packnet_tf.apps.device.classifier import Classifier
    from packnet_tf.apps.images.folders import read_folder
    from packnet_tf.export import export_onnx

    folder, report = trained_once
    net = packnet_tf.load(folder / "pack.keras")
    export_onnx(net, "shades", tmp_path / "m.onnx")
    classifier = Classifier(str(tmp_path / "m.onnx"))
    files = read_folder(folder / "shades").files["test"]
    right = [classifier.top(path, 1)[0][0] == label for path, label in files]
    assert report.accuracy["test"] == pytest.approx(np.mean(right), abs=1e-6)
    assert set(report.accuracy) == {"before the prune", "after it", "retrained", "test"}
    assert classifier.task == "shades"


def test_weights_freed_from_random_values_restart_from_zero(trained_once):
    assert packnet_tf.load(trained_once[0] / "pack.keras").policy.restart == "zero"


def test_what_training_measured_stays(trained_once):
    folder, report = trained_once
    net = packnet_tf.load(folder / "pack.keras")
    found = net.metadata("shades")
    assert found.pop("committed").startswith("20")
    assert found == {
        "data": str(folder / "shades"), "images": report.images, "image_size": [16, 16],
        "pixel_range": "0,255", "epochs": 3, "validation_share": 0.1, "seed": 0,
    }  # fmt: skip
    logs = folder / "pack.keras.runs" / "shades"
    entry = json.loads((logs / "history.json").read_text())
    assert entry["test"]["accuracy"] == net.results("shades")["test"] == report.accuracy["test"]
    assert (logs / "epochs.csv").read_text().count("\n") == 1 + len(entry["epochs"]) == 4
    assert len(list(logs.glob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_classes_of_few_images_may_count_more(place, capsys):
    folder = read_folder(place / "shades", 0.1, 0)
    counts = collections.Counter(label for _, label in folder.files["train"])
    train(task_plan(place, class_weight="balanced"))
    said = capsys.readouterr().out
    whole = counts.total() / len(counts)
    weights = [f"{name} {whole / counts[i]:.3g}" for i, name in enumerate(folder.classes)]
    assert f"shades: weights of images by class: {', '.join(weights)}" in said


def test_unreadable_images_are_counted_and_named_at_the_end(place, capsys):
    broken = place / "shades" / "train" / "dark" / "03.png"
    broken.write_bytes(b"no image")
    text = str(train(task_plan(place, epochs=1, prune_epoch=0)))
    assert re.search(r"unreadable images, skipped +1\n", text)
    assert f"Skipped: '{broken}' is not a readable image" in text
    assert "WARNING: the prune comes before all training" in capsys.readouterr().out


def test_a_task_name_that_is_a_path_touches_no_folder(place):
    data = str(place / "shades")
    before = sorted(place.rglob("*"))
    for task in (data, "../shades", ""):
        with pytest.raises(ValueError, match="usable as a file name"):
            train(task_plan(place, fresh=True, data=data, task=task))
    assert sorted(place.rglob("*")) == before


def test_packs_made_in_python_say_their_pixel_range_or_are_refused(place):
    trunk = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    net = packnet_tf.PackNet(trunk)
    net.save(place / "pack.keras")
    with pytest.raises(ValueError, match="does not say which pixel values its trunk takes"):
        train(task_plan(place, epochs=1, prune_epoch=0))
    net.notes["pixel_range"] = "0,1"
    net.save(place / "pack.keras")
    train(task_plan(place, epochs=1, prune_epoch=0))
    flat = packnet_tf.PackNet(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    flat.save(place / "pack.keras")
    with pytest.raises(ValueError, match=r"takes \(None, 4\) and gives \(None, 2\); expected"):
        train(task_plan(place))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"norms": "shared"}, "made with --norms=per_task, which holds for all its"),
        (
            {"image_size": 32},
            r"takes inputs of shape \(None, 16, 16, 3\), and this command says --image_size=32\. "
            "Leave --image_size out, or make a new pack",
        ),
        ({"adopt": "trunk"}, "--adopt=trunk makes the trunk the first task of a new pack, and "
         ".* has the tasks 'shades'. Leave --adopt out"),
        ({"precision": "mixed_float16"}, "computes in float32, and this command says "
         "--precision=mixed_float16. .* leave it out"),
    ],
)  # fmt: skip
def test_what_contradicts_the_pack_is_refused(changes, text, trained):
    with pytest.raises(ValueError, match=text):
        train(task_plan(trained, task="greys", **changes))
    assert packnet_tf.load(trained / "pack.keras").tasks == ("shades",)


@pytest.mark.parametrize("trunk", ["file", *slow("MobileNet")])
def test_a_pack_computes_as_it_was_made(trunk, place):
    short = {"epochs": 2, "prune_epoch": 1, "learning_rate": 1e-5}
    if trunk != "file":
        short |= {"trunk": trunk, "trunk_output": None, "trunk_weights": "none", "image_size": 32}
    train(task_plan(place, precision="mixed_bfloat16", **short))
    keras.config.set_dtype_policy("float32")
    train(task_plan(place, task="greys", **short))  # says nothing of it
    net = packnet_tf.load(place / "pack.keras")
    for name in net.tasks:
        model = net.task_model(name)
        policies = {layer.dtype_policy.name for layer in packed_layers(model.trunk)}
        assert policies | {model.head.dtype_policy.name} == {"mixed_bfloat16"}


def test_a_trunk_of_half_precision_trains_in_what_the_command_says(place):
    half = keras.saving.load_model(place / "small.keras")
    for policy in ("mixed_float16", "float16"):
        keras.config.set_dtype_policy(policy)
        x = inputs = keras.Input((16, 16, 3))
        for layer in half.layers[1:-1]:
            x = type(layer).from_config({**layer.get_config(), "dtype": policy})(x)
        keras.Model(inputs, x).save(place / f"{policy}.keras")
    keras.config.set_dtype_policy("float32")
    given = {"trunk": str(place / "float16.keras"), "epochs": 1, "prune_epoch": 0}
    said = r"float16.keras' are float16, which is too coarse .* Add --precision=mixed_float16"
    with pytest.raises(ValueError, match=said):
        train(task_plan(place, **given))
    for policy in ("mixed_float16", "float16"):
        given |= {"trunk": str(place / f"{policy}.keras"), "pack": str(place / f"{policy}_p.keras")}
        train(task_plan(place, precision="float32", **given))
        trunk = packnet_tf.load(given["pack"]).task_model("shades").trunk
        assert {v.dtype for v in trunk.weights if "float" in v.dtype} == {"float32"}


def test_the_adopted_trunk_has_a_name_of_its_own(place):
    with pytest.raises(
        ValueError, match="'shades' is to be the name of the pretrained trunk, which"
    ):
        train(task_plan(place, adopt="shades"))
    with pytest.raises(ValueError, match="usable as a file name"):
        train(task_plan(place, adopt="../trunk"))
    assert not list(place.glob("*.progress"))


def test_names_to_reuse_are_checked_before_anything_is_done(place):
    with pytest.raises(ValueError, match="reuse names 'birds', which is not a committed task"):
        train(task_plan(place, reuse="birds"))
    assert not list(place.glob("*.progress"))


def test_a_task_of_the_same_name_and_a_missing_trunk_are_errors(place, trained):
    with pytest.raises(ValueError, match=r"no pack .*and no trunk.*Add --trunk=FILE.keras"):
        train(task_plan(place, trunk=None))
    with pytest.raises(ValueError, match=r"has a task 'shades' already\. Choose another name"):
        train(task_plan(trained))


def test_a_later_task_begins_with_a_converged_head_whatever_its_rate(trained):
    pack, kernels = (trained / "pack.keras").read_bytes(), []
    for scale_rate in (False, True):  # at such a rate it stays as it began
        (trained / "pack.keras").write_bytes(pack)
        train(task_plan(trained, task="greys", learning_rate=1e-30, scale_rate=scale_rate))
        net = packnet_tf.load(trained / "pack.keras")
        kernels.append(net.unpack("greys").layers[-1].get_weights()[0])
    np.testing.assert_array_equal(kernels[1], kernels[0])
    found = net.results("greys")
    assert found["linear_head"] > found["chance"]
    assert "linear_head" not in net.results("shades")  # its trunk had learnt nothing


@pytest.fixture
def pretrained(place):
    """A folder whose trunk has normalisations that were trained."""
    trunk = keras.saving.load_model(place / "small.keras")
    for norm in trunk._flatten_layers():
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.gamma.assign(norm.gamma * 0.9)
    trunk.save(place / "small.keras")
    return place


def test_a_pretrained_trunk_is_kept_as_the_base(pretrained):
    train(task_plan(pretrained))
    net = packnet_tf.load(pretrained / "pack.keras")
    assert net.tasks == ("base", "shades")
    assert {"chance", "linear_head", "before_prune", "retrained", "test"} <= set(
        net.results("shades")
    )
    assert net.results("shades")["retrained"] >= net.results("shades")["linear_head"]
    assert net.policy.restart == "zero"


@pytest.mark.slow
def test_later_tasks_reuse_the_base_alone_unless_told_otherwise(pretrained):
    short = {"epochs": 1, "prune_epoch": 0}
    train(task_plan(pretrained, **short))
    train(task_plan(pretrained, task="greys", overlay="none", **short))  # short: below its head
    train(task_plan(pretrained, task="again", data=str(pretrained / "greys"), reuse="all", **short))
    net = packnet_tf.load(pretrained / "pack.keras")
    assert net.reused("greys") == ("base",)
    assert net.reused("again") == ("base", "shades", "greys")


def test_a_pretrained_trunk_is_not_kept_where_told_not_to(pretrained):
    train(task_plan(pretrained, adopt="none", epochs=1, prune_epoch=0))
    net = packnet_tf.load(pretrained / "pack.keras")
    assert net.tasks == ("shades",)
    assert net.policy.restart == "trunk"
