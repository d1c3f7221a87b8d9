"""The images that a task of a pack is measured on: none that trained it."""

import shutil

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.image_folders import small_pack, write_task
from helpers.pack_helpers import jolt
from packnet_tf.apps.images.folders import read_folder
from packnet_tf.apps.main import main
from packnet_tf.apps.packs.task_images import calibration_images, held_out_images, noted_images
from packnet_tf.apps.pages.pack_classifier import PackClassifier

CLASSES = ["dark", "light"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pack of a base and of one task, with the folder that the task was trained with."""
    folder = tmp_path_factory.mktemp("garden")
    write_task(folder / "shades", test=False)
    shutil.rmtree(folder / "shades" / "validation", ignore_errors=True)
    for name in CLASSES:  # a folder of classes, without splits
        (folder / "shades" / "train" / name).rename(folder / "shades" / name)
    (folder / "shades" / "train").rmdir()
    net = small_pack({"shades": CLASSES}, base="base")
    net.note_metadata("shades", data=str(folder / "shades"), validation_share=0.25, seed=3)
    net.save(folder / "garden.keras")
    return folder


def test_a_task_is_measured_on_what_training_held_out(place, tmp_path):
    net = packnet_tf.load(place / "garden.keras")
    held_out = read_folder(place / "shades", 0.25, 3).files["validation"]
    found = held_out_images(net, "shades", str(place / "shades"))
    assert found.files == held_out
    assert f"only the images that training held out count, {len(held_out)}" in found.notes[0]
    every = [path for name in CLASSES for path in (place / "shades" / name).iterdir()]
    assert 0 < len(held_out) < len(every)

    other = shutil.copytree(place / "shades", tmp_path / "other")  # new images, for all we know
    assert len(held_out_images(net, "shades", str(other)).files) == len(every)
    split = tmp_path / "split"
    shutil.copytree(place / "shades", split / "train")
    net.note_metadata("shades", data=str(split))
    assert len(held_out_images(net, "shades", str(split)).files) == len(held_out)
    shutil.copytree(place / "shades", split / "test")
    assert held_out_images(net, "shades", str(split)).folder == split / "test"


def test_a_task_is_not_measured_on_a_folder_that_has_changed(place, tmp_path, capsys):
    net, folder = packnet_tf.load(place / "garden.keras"), tmp_path / "shades"
    shutil.copytree(place / "shades", folder)
    noted = {"data": str(folder), "validation_share": 0.25, "seed": 3}
    net.note_metadata("shades", **noted, split=read_folder(folder, 0.25, 3).split)
    held_out = held_out_images(net, "shades", str(folder)).files
    assert list(noted_images(net, "garden.keras", ["shades"], 4)[1]) == ["shades"]

    shutil.copytree(folder, tmp_path / "moved")  # elsewhere it is the same split
    net.note_metadata("shades", data=str(tmp_path / "moved"))
    assert len(held_out_images(net, "shades", str(tmp_path / "moved")).files) == len(held_out)

    first = min((folder / "dark").iterdir())
    shutil.copy(first, folder / "dark" / f"0{first.name}")
    net.note_metadata("shades", data=str(folder))
    with pytest.raises(ValueError, match="has other images than at the training, so which of them"):
        held_out_images(net, "shades", str(folder))
    capsys.readouterr()
    calibration, evaluate = noted_images(net, "garden.keras", ["shades"], 4)
    assert calibration["shades"] is not None
    assert evaluate == {}
    assert "Its files are not measured on images." in capsys.readouterr().out


def test_a_folder_without_a_name_is_for_the_one_task_that_gives_classes(place, tmp_path, capsys):
    pack, folder, onnx = (str(place / name) for name in ("garden.keras", "shades", "onnx"))
    page = f"--html={tmp_path / 'page.html'}"
    assert main(["report", pack, page, f"--data={folder}"]) == 0
    assert main(["export", pack, onnx, f"--evaluate={folder}"]) == 0
    assert main(["benchmark", onnx, f"--data={folder}", "--seconds=0", "--batch_sizes=1"]) == 0
    assert "accuracy" in capsys.readouterr().out.rpartition("file ")[2]
    assert main(["report", pack, page, f"--data=base:{folder}"]) == 2
    assert "the tasks that give classes are 'shades'." in capsys.readouterr().err


def test_a_page_about_files_leaves_out_what_cannot_be_measured(place, tmp_path, capsys):
    net, pack, onnx = packnet_tf.load(place / "garden.keras"), tmp_path / "p.keras", tmp_path / "o"
    net.note_metadata("shades", data=str(tmp_path / "gone"))
    net.save(pack)
    assert main(["export", str(pack), str(onnx)]) == 0
    page = tmp_path / "page.html"
    assert main(["report", str(pack), f"--html={page}", f"--model={onnx}"]) == 0
    out = capsys.readouterr().out
    assert f"shades is not measured: There is no folder '{tmp_path / 'gone'}'." in out
    assert "What shades answers" not in page.read_text()
    data = f"--data=shades:{place / 'shades'}"
    assert main(["report", str(pack), f"--html={page}", f"--model={onnx}", data]) == 0
    assert "What shades answers" in page.read_text()


def test_files_with_other_classes_than_the_pack_are_refused(place, tmp_path, capsys):
    net, onnx = packnet_tf.load(place / "garden.keras"), tmp_path / "onnx"
    net.release("shades")
    jolt(net.add_task("shades", layers.Dense(2), classes=CLASSES[::-1]))
    net.commit()
    net.save(tmp_path / "other.keras")
    assert main(["export", str(tmp_path / "other.keras"), str(onnx)]) == 0
    page = f"--html={tmp_path / 'page.html'}"
    assert main(["report", str(place / "garden.keras"), page, f"--model={onnx}"]) == 1
    assert "has other classes of 'shades' than" in capsys.readouterr().err


def test_a_task_that_answers_no_numbers_is_named(place):
    net = packnet_tf.load(place / "garden.keras")
    large = layers.Dense(2, bias_initializer=keras.initializers.Constant(3e38))
    net.add_task("broken", keras.Sequential([large, layers.Rescaling(10.0)]))  # float32 overflows
    net.commit()
    images = [np.zeros((16, 16, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"Task 'broken' of 'p.keras' answers NaN or infinite"):
        PackClassifier(net, "broken", "p.keras").top_of(images, 1)
    assert len(PackClassifier(net, "shades", "p.keras").top_of(images, 1)[0]) == 1
    assert PackClassifier(net, "shades", "p.keras").top_of([], 1) == []  # all were unreadable


def test_what_is_left_out_of_a_noted_folder_is_said_once(place, tmp_path, capsys):
    net, folder = packnet_tf.load(place / "garden.keras"), tmp_path / "shades"
    shutil.copytree(place / "shades", folder)
    net.note_metadata("shades", data=str(folder), validation_share=0.25, seed=3)
    (folder / "dark" / "more").symlink_to(tmp_path / "gone")
    (folder / "@eaDir").mkdir()
    notes = read_folder(folder).notes
    assert len(notes) == 2
    _, evaluate = noted_images(net, "garden.keras", ["shades"], 5)
    assert list(evaluate) == ["shades"]
    assert capsys.readouterr().out.splitlines() == [f"shades: {note}" for note in notes]
    assert held_out_images(net, "shades", str(folder)).notes[1:] == notes
    calibration_images(net, "garden.keras", str(folder), 5)
    assert "dark/more' is a link to" in capsys.readouterr().out
