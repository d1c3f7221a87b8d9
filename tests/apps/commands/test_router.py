"""Routers on the command line: kept from month to month, exported, and asked for each image."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import packnet_tf
from helpers.image_folders import small_pack, write_task
from packnet_tf.apps.main import main

TASKS = {"shades": ["dark", "light"], "stripes": ["dark", "light"]}


def draw_stripes(folder, axis):
    """Draws strong stripes across all images of a folder."""
    for path in folder.rglob("*.png"):
        pixels = np.asarray(Image.open(path)) // 4
        (pixels if axis == 0 else pixels.swapaxes(0, 1))[::4] = 255
        Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pack of a base and two tasks, and an export with a router for both."""
    folder = tmp_path_factory.mktemp("router")
    for seed, name in enumerate([*TASKS, "waves"]):
        write_task(folder / name, train=20, held_out=10, seed=seed)
    draw_stripes(folder / "stripes", axis=0)
    draw_stripes(folder / "waves", axis=1)
    net = small_pack(TASKS, base="base")
    for name in TASKS:
        net.note_metadata(name, data=str(folder / name))
    net.save(folder / "pack.keras")
    assert export(folder, "--preprocessing=uint8") == 0
    return folder


def export(folder, *flags):
    pack, router = str(folder / "pack.keras"), f"--router={folder / 'router.npz'}"
    return main(["export", pack, str(folder / "onnx"), router, *flags])


def predicted(capsys, folder, images):
    assert main(["predict", str(folder / "onnx"), "--router", "--json", str(images)]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_image_is_answered_by_the_task_that_it_is_for(place, capsys):
    capsys.readouterr()
    for name in TASKS:
        entries = predicted(capsys, place, place / name / "test")
        routed = [entry["routed"]["task"] for entry in entries]
        assert routed.count(name) >= 16, routed
        assert set(routed) <= {name, None}
        for entry in entries:
            answers = [answer["task"] for answer in entry["models"]]
            assert answers == [entry["routed"]["task"]] * (entry["routed"]["task"] is not None)
            assert list(entry["routed"]["scores"]) == list(TASKS)
    unknown = predicted(capsys, place, place / "waves" / "test")
    assert [entry["routed"]["task"] for entry in unknown] == [None] * 20
    assert main(["predict", str(place / "onnx"), "--router", str(place / "waves" / "test")]) == 0
    assert capsys.readouterr().out.count("for none of the tasks") == 20


def test_predictions_are_those_of_the_router_in_keras(place, capsys):
    capsys.readouterr()
    net = packnet_tf.load(place / "pack.keras")
    router = packnet_tf.TaskRouter.load(place / "router.npz", net)
    entries = predicted(capsys, place, place / "stripes" / "test")
    images = [np.asarray(Image.open(entry["image"]), np.float32) for entry in entries]
    assert [entry["routed"]["task"] for entry in entries] == router.predict(np.stack(images))


def test_a_later_export_adds_only_what_the_router_lacks(place, tmp_path, capsys):
    folder = shutil.copytree(place, tmp_path / "later")
    net = packnet_tf.load(folder / "pack.keras")
    net.note_metadata("shades", data="gone")  # its images are not needed again
    net.save(folder / "pack.keras")
    router = packnet_tf.TaskRouter.load(folder / "router.npz", net)
    router.remove("stripes")
    router.save(folder / "router.npz")
    assert export(folder, "--preprocessing=uint8") == 0
    out = capsys.readouterr().out
    assert "Adding stripes to the router" in out
    assert "shades to the router" not in out
    again = (folder / "onnx" / "router.onnx").read_bytes()
    assert again == (place / "onnx" / "router.onnx").read_bytes()
    report = ["report", str(folder / "pack.keras"), f"--router={folder / 'router.npz'}"]
    assert main([*report, "--json"]) == 0
    out = capsys.readouterr().out
    assert list(json.loads(out[out.index("{") :])["router"]) == list(TASKS)
    assert main([*report, "--picture=none"]) == 0
    assert "router's bytes" in capsys.readouterr().out


def test_what_does_not_go_with_a_router_is_refused(place, tmp_path, capsys):
    folder = shutil.copytree(place / "onnx", tmp_path / "onnx")
    photo = str(place / "shades" / "test")
    assert export(place, "--multitask") == 2
    assert main(["predict", str(folder / "model_task2.onnx"), "--router", photo]) == 1
    assert "packnet export PACK DIR --router=" in capsys.readouterr().err
    assert main(["predict", str(folder), "--router", "--task=shades", photo]) == 1
    assert "'stripes'" in capsys.readouterr().err
    (folder / "router.onnx").write_bytes(b"cut off")
    assert main(["predict", str(folder), "--router", photo]) == 1
    assert "router.onnx" in capsys.readouterr().err


def test_a_report_on_a_router_that_is_missing_says_how_to_write_one(place, capsys):
    pack, router = str(place / "pack.keras"), str(place / "missing.npz")
    assert main(["report", pack, f"--router={router}"]) == 1
    assert capsys.readouterr().err == (
        f"packnet report: There is no router '{router}'. Write one with packnet export {pack} DIR "
        f"--router={router}.\n"
    )


def test_a_task_called_router_keeps_its_file(tmp_path, capsys):
    small_pack({"router": ["dark", "light"]}).save(tmp_path / "pack.keras")
    assert export(tmp_path, "--names=task") == 2
    assert "would both be router.onnx; leave --names=task out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["pack.keras"]
