"""`packnet export --for=edge`: what nearly everybody wants, in one flag."""

import json
import shutil

import pytest

import packnet_tf
from helpers.image_folders import small_pack, write_task
from packnet_tf.apps.main import main

TASKS = {"shades": ["dark", "light"], "greys": ["a", "b", "c"]}


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A pack whose first task is an adopted trunk; the others have noted their folders."""
    folder = tmp_path_factory.mktemp("edge")
    write_task(folder / "shades")
    write_task(folder / "greys", classes=TASKS["greys"], seed=1, test=False)
    net = small_pack(TASKS, base="base")
    for name in TASKS:
        net.note_metadata(name, data=str(folder / name))
    net.save(folder / "pack.keras")
    return folder / "pack.keras"


def export(capsys, pack, folder, *flags):
    """Exports with `--for=edge`; returns what is printed, and the tasks' entries by name."""
    assert main(["export", str(pack), str(folder), "--for=edge", *flags]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    return capsys.readouterr().out, {task["task"]: task for task in manifest["tasks"]}


def test_files_are_uint8_top_k_int8_and_calibrated_and_measured_on_their_own_images(
    pack, tmp_path, capsys
):
    out, tasks = export(capsys, pack, tmp_path / "onnx")
    assert out.count("no images to calibrate and measure it with") == 1
    assert "base: The pack names no folder of its images. There are no images" in out
    assert {name: task["calibrated"] for name, task in tasks.items()} == {
        "base": False, "shades": True, "greys": True
    }  # fmt: skip
    assert "evaluated" not in tasks["base"]
    assert [output["name"] for output in tasks["base"]["outputs"]] == ["features"]
    for name, images in {"shades": 12, "greys": 18}.items():  # of test, of validation
        task = tasks[name]
        assert task["evaluated"]["images"] == images
        assert task["precision"] == "int8"
        assert task["inputs"][0]["dtype"] == "uint8"
        assert task["outputs"][0] == {
            "name": "top_classes", "shape": [None, len(TASKS[name])], "dtype": "int64"
        }  # fmt: skip
        by_hand = tmp_path / name
        flags = ["--preprocessing=uint8", "--outputs=top_k", "--precision=int8", f"--task={name}"]
        flags += [f"--calibration={pack.parent / name / 'train'}"]
        assert main(["export", str(pack), str(by_hand), *flags]) == 0
        [same] = json.loads((by_hand / "manifest.json").read_text())["tasks"]
        assert same["sha256"] == task["sha256"]
    assert main(["verify", str(pack), str(tmp_path / "onnx")]) == 0
    picture = next((pack.parent / "shades" / "test").rglob("*.png"))
    assert main(["predict", str(tmp_path / "onnx"), "--task=shades", str(picture)]) == 0


def test_a_bundle_is_calibrated_on_the_images_of_its_tasks(pack, tmp_path, capsys):
    _, tasks = export(capsys, pack, tmp_path / "onnx", "--bundle")
    assert {name: task["calibrated"] for name, task in tasks.items()} == {
        "base": False, "shades": True, "greys": True
    }  # fmt: skip
    assert [tasks[name]["evaluated"]["images"] for name in TASKS] == [12, 18]
    assert main(["verify", str(pack), str(tmp_path / "onnx")]) == 0


@pytest.mark.parametrize("change", ["gone", "other classes"])
def test_a_folder_that_is_gone_or_changed_is_said_and_its_task_exported_without(
    change, pack, tmp_path, capsys
):
    net = packnet_tf.load(pack)
    moved = shutil.copytree(pack.parent / "shades", tmp_path / "shades")
    net.note_metadata("shades", data=str(moved))
    if change == "gone":
        shutil.rmtree(moved)
        said = f"shades: There is no folder '{moved}'."
    else:
        for split in moved.iterdir():
            (split / "light").rename(split / "pale")
        said = f"shades: '{moved}' has the classes 'dark', 'pale', and the task 'dark', 'light'."
    net.save(tmp_path / "pack.keras")
    out, tasks = export(capsys, tmp_path / "pack.keras", tmp_path / "onnx")
    assert said in out
    assert (tasks["shades"]["calibrated"], tasks["greys"]["calibrated"]) == (False, True)
    assert "evaluated" not in tasks["shades"]
    assert "evaluated" in tasks["greys"]


def test_flags_that_are_given_win(pack, tmp_path, capsys):
    only = ("--task=greys",)
    flags = ("--precision=float32", "--preprocessing=trained", "--softmax")
    task = export(capsys, pack, tmp_path / "a", *only, *flags)[1]["greys"]
    assert task["precision"] == "float32"
    assert (task["inputs"][0]["dtype"], task["outputs"][0]["name"]) == ("float32", "probabilities")
    assert task["evaluated"]["images"] == 18
    folder = pack.parent / "greys" / "train"
    task = export(capsys, pack, tmp_path / "b", *only, f"--evaluate={folder}", "--top_k=2")[1]
    assert task["greys"]["evaluated"]["images"] == 36
    assert task["greys"]["outputs"][0]["shape"] == [None, 2]


@pytest.mark.parametrize("given", ["--precision=float32", "--calibration"])
def test_nothing_is_said_of_a_calibration_that_the_flags_leave_out(given, pack, tmp_path, capsys):
    flag = f"{given}={pack.parent / 'shades'}" if given == "--calibration" else given
    out, tasks = export(capsys, pack, tmp_path / "onnx", flag, "--task=base,shades")
    assert "There are no images to measure it with." in out
    assert "calibrate" not in out
    assert tasks["shades"]["evaluated"]["images"] == 12
    assert tasks["base"].get("calibrated", False) is (given == "--calibration")


def test_a_bundle_stores_its_weights_in_int8(pack, tmp_path, capsys):
    _, tasks = export(capsys, pack, tmp_path / "bundle", "--bundle", "--names=task")
    assert {task["precision"] for task in tasks.values()} == {"int8"}
    assert tasks["shades"]["file"] == "shades.onnx"
    assert tasks["shades"]["evaluated"]["images"] == 12
    assert main(["verify", str(pack), str(tmp_path / "bundle")]) == 0


def test_unknown_tasks_and_purposes_are_refused(pack, tmp_path, capsys):
    assert main(["export", str(pack), str(tmp_path / "a"), "--for=edge", "--task=cats"]) == 1
    out, err = capsys.readouterr()
    assert (out, "There is no committed task 'cats'" in err) == ("", True)
    assert main(["export", str(pack), str(tmp_path / "a"), "--for=desk"]) == 2
