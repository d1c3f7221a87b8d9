"""`packnet export` and `packnet verify`, on a small pack of two image tasks."""

import json

import pytest

from helpers.export_helpers import shared_file
from helpers.image_folders import small_pack, write_task
from packnet_tf.apps.main import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pack of two tasks, and folders of their images."""
    folder = tmp_path_factory.mktemp("place")
    write_task(folder / "shades")
    write_task(folder / "greys", classes=("a", "b", "c"), seed=1, test=False)
    tasks = {"shades": ["dark", "light"], "greys": ["a", "b", "c"]}
    small_pack(tasks).save(folder / "pack.keras")
    return folder


@pytest.fixture
def packnet(place, tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder beside the pack; returns (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(command, *flags):
        status = main([command, f"--pack={place}/pack.keras", *flags])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_folder_for_files_is_not_named_like_one(packnet):
    status, _, err = packnet("export", "--output=out/garden.onnx")
    assert status == 2
    assert "is named like a file; write out/garden/, or add --multitask for one file of all" in err


def test_int8_is_calibrated_and_measured_on_folders(packnet, place, tmp_path):
    status, out, err = packnet(
        "export", "--output=small", "--task=shades", "--precision=int8",
        f"--calibration={place}/shades/train", f"--evaluate={place}/shades",
        "--preprocessing=uint8", "--outputs=probabilities",
    )  # fmt: skip
    assert (status, err) == (0, "")
    [task] = manifest(tmp_path / "small")["tasks"]
    assert task["calibrated"] is True
    assert task["evaluated"]["images"] == 12
    assert "accuracy  in Keras  same answer\n" in out
    shown = f"{task['evaluated']['accuracy']:.1%}"
    assert "model_task1.onnx  shades" in out
    assert shown in out
    status, out, err = packnet("verify", "--onnx=small", f"--images={place}/shades")
    assert (status, err) == (0, "")
    assert "The task is as the pack says." in out
    assert main(["evaluate", "--model=small/model_task1.onnx", f"--data={place}/shades"]) == 0


def test_a_bundle_in_int8_is_calibrated_and_measured_on_folders(packnet, place, tmp_path):
    given = ("--bundle", "--precision=int8", f"--calibration={place}/shades/train")
    folders = f"--evaluate=shades:{place}/shades"
    status, out, err = packnet("export", "--output=small", folders, *given)
    assert (status, err) == (0, "")
    assert "accuracy  in Keras  same answer\n" in out
    written = manifest(tmp_path / "small")
    assert [task["calibrated"] for task in written["tasks"]] == [True, True]
    assert [file["calibrated"] for file in written["shared"]] == [True]
    assert packnet("verify", "--onnx=small", f"--images={place}/shades")[::2] == (0, "")
    assert main(["evaluate", "--model=small/model_task1.onnx", f"--data={place}/shades"]) == 0
    assert main(["benchmark", "small"]) == 0
    update = ("--bundle", "--precision=int8", "--update_from=small")
    status, _, err = packnet("export", "--output=new", *update)
    assert status == 1
    assert "is calibrated, and this update is not calibrated" in err


def test_folders_are_given_by_task(packnet, place, tmp_path):
    folders = f"shades:{place}/shades,greys:{place}/greys"
    assert packnet("export", "--output=onnx", f"--evaluate={folders}")[0] == 0
    counts = [task["evaluated"]["images"] for task in manifest(tmp_path / "onnx")["tasks"]]
    assert counts == [12, 18]
    assert all(
        task["evaluated"]["agreement"] == 1.0 for task in manifest(tmp_path / "onnx")["tasks"]
    )


def test_a_bundle_is_written_and_nothing_is_sent_twice(packnet, tmp_path):
    status, out, err = packnet("export", "--output=bundle", "--bundle", "--optimized")
    assert (status, err) == (0, "")
    shared = shared_file(tmp_path / "bundle")
    assert f"Shared: {shared.name} (" in out
    names = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert {"model_task1.onnx", "model_task1.ort", shared.name, "manifest.json"} <= names
    status, out, err = packnet("export", "--output=new", "--bundle", "--update_from=bundle")
    assert (status, err) == (0, "")
    assert "Written: manifest.json.\n" in out
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["manifest.json"]
    assert packnet("verify", "--onnx=bundle")[0] == 0
    status, out, err = packnet("verify", "--onnx=new")
    assert (status, out) == (1, "")
    assert err == (
        "packnet verify: 'new' is an update of a bundle, which has only what the bundle lacks "
        "('manifest.json'). Copy these files over the bundle, manifest.json last, and verify the "
        "folder of the bundle.\n"
    )


def test_what_is_wrong_is_listed_and_ends_with_status_1(packnet, tmp_path):
    assert packnet("export", "--output=onnx")[0] == 0
    (tmp_path / "onnx" / "model_task2.onnx").unlink()
    status, out, err = packnet("verify", "--onnx=onnx")
    assert status == 1
    assert "WRONG" in out
    assert err == (
        "packnet verify: 1 of 2 tasks in 'onnx' are not what the pack says:\n"
        "  model_task2.onnx (greys): 'model_task2.onnx': it is missing\n"
        "Write them again with packnet export.\n"
    )


def test_images_that_cannot_be_read_are_named_and_left_out(packnet, place, tmp_path):
    folder = write_task(tmp_path / "shades")
    broken = folder / "test" / "dark" / "00.png"
    broken.write_bytes(b"no image")
    status, out, err = packnet("export", "--output=onnx", f"--evaluate=shades:{folder}")
    assert (status, err) == (0, "")
    assert f"Skipped: '{broken}' is not a readable image" in out
    assert manifest(tmp_path / "onnx")["tasks"][0]["evaluated"]["images"] == 11
    status, out, err = packnet("verify", "--onnx=onnx", f"--images={folder}/test", "--count=12")
    assert (status, err) == (0, "")
    assert f"Skipped: '{broken}'" in out
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    status, _, err = packnet("verify", "--onnx=onnx", f"--images={folder}/test")
    assert status == 1
    assert err.startswith(f"packnet verify: No image can be read: '{broken}' is not a readable")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--update_from=a"], 2, "--update_from is for bundles; add --bundle"),
        (["--optimized"], 2, "--optimized is for bundles; add --bundle"),
        (["--bundle", "--task=shades"], 2, "a bundle holds all tasks; leave out --task"),
        (["--calibration=a"], 2, "--calibration is for --precision=int8"),
        (["--precision=int4"], 2, "--precision=int4"),
        (["--evaluate=a"], 2, "does not say which of the tasks 'shades', 'greys' it is for. Write"),
        (
            ["--evaluate=cats:a"],
            2,
            "names the task 'cats'; the tasks that give classes are 'shades', 'greys'.",
        ),
        (["--evaluate=shades:nowhere"], 1, "There is no folder 'nowhere'."),
        (["--task=cats"], 1, "There is no committed task 'cats'. Committed tasks: 'shades', 'gr"),
        (["--bundle", "--calibration=a"], 2, "--calibration is for --precision=int8"),
        (["--top_k=3"], 2, 'top_k=3 goes with outputs="top_k". Add that. See packnet export'),
        (["--opset=99"], 2, "opset is 13 to 18; got 99."),
        (["--channel_order=bgr"], 2, "channel_order='bgr' is for files that take pictures."),
        (["--bundle", "--update_from=nowhere"], 1, "'nowhere' holds no bundle to update."),
        (["--precision=int8", "--calibration=nowhere"], 1, "There are no images in 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(flags, status, text, packnet, tmp_path):
    found, _, err = packnet("export", "--output=onnx", *flags)
    assert found == status
    assert text in err
    assert not (tmp_path / "onnx").exists()
