"""`packnet train` that is stopped, and started again."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import packnet_tf
from helpers import trainer_runs
from helpers.image_folders import short_plan, small_pack, task_plan, write_place
from helpers.pack_helpers import owners, pack_task, same
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.training import train
from packnet_tf.training import checkpoint


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path)


def kill(plan, monkeypatch, after=3):
    """Trains until the power goes, after the first epoch."""
    real, calls = rates.cosine, []

    def die(*arguments):
        calls.append(arguments)
        if len(calls) == after:  # rates are asked for at compiling, then in every epoch
            raise OSError("the power is gone")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rates, "cosine", die)
        with pytest.raises(OSError, match="the power is gone"):
            train(plan)


@pytest.mark.slow
def test_a_killed_run_continues_where_it_was(place, monkeypatch):
    train(task_plan(place, epochs=4))
    whole = owners(packnet_tf.load(place / "pack.keras"))
    (place / "pack.keras").unlink()
    kill(task_plan(place, epochs=4), monkeypatch)
    assert not (place / "pack.keras").exists()
    assert (place / "pack.keras.progress" / "checkpoint.npz").exists()

    # In the retraining, a process that has no time for anything.
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from packnet_tf.apps.packs import rates, training
from helpers.image_folders import task_plan
import pathlib, os
real, calls = rates.cosine, []
def die(*arguments):
    calls.append(arguments)
    if len(calls) == 4:
        os._exit(99)
    return real(*arguments)
rates.cosine = die
training.train(task_plan(pathlib.Path({str(place)!r}), epochs=4))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 99, done.stderr
    assert "shades: continuing after 1 epochs" in done.stdout
    assert not (place / "pack.keras").exists()
    report = train(task_plan(place, epochs=4))
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
        train(task_plan(place))
    train(task_plan(place, fresh=True, epochs=1, prune_epoch=0))
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)


@pytest.mark.parametrize("several", [False, True])
def test_a_slash_at_the_end_is_no_other_folder(several, place, monkeypatch):
    def plan(data):
        given = {"tasks": (("shades", data),)} if several else {"task": "shades", "data": data}
        return short_plan(place, **given)

    kill(plan(str(place / "shades")), monkeypatch)
    train(plan(f"{place / 'shades'}/"))
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)


def test_a_run_is_found_by_every_name_of_its_pack(place, monkeypatch):
    (place / "link.keras").symlink_to(place / "pack.keras")
    kill(task_plan(place), monkeypatch)
    train(task_plan(place, pack=str(place / "link.keras")))
    assert (place / "link.keras").is_symlink()
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)
    assert (place / "pack.keras.runs" / "shades" / "history.json").exists()
    assert not [*place.glob("*.progress"), *place.glob("link.keras.*")]


@pytest.mark.parametrize("since", ["released", "added", "anew"])
def test_continuing_with_a_pack_that_has_changed_is_refused(since, place, monkeypatch):
    path = place / "pack.keras"
    small_pack({"moss": ["a", "b"], "fern": ["a", "b"]}).save(path)
    plan = task_plan(place, trunk=None, trunk_output=None)
    kill(plan, monkeypatch)
    net = packnet_tf.load(path)
    if since != "added":
        net.release("fern")
    if since != "released":
        pack_task(net, "fern" if since == "anew" else "ivy", seed=9)
    net.save(path)
    now = {"released": "'moss'", "added": "'moss', 'fern', 'ivy'"}
    what = f"it had the tasks 'moss', 'fern' then, and has {now.get(since)} now"
    if since == "anew":
        what = "it has the same tasks ('moss', 'fern'), but other weights, trunk or policy"
    with pytest.raises(ValueError) as error:
        train(plan)
    assert str(error.value) == (
        f"The pack has changed since the run in '{path}.progress' began: {what}. Add --fresh to "
        "start over with the pack as it is now. Or bring back the old one, to continue: a copy is "
        f"'{path}.progress/pack.keras'."
    )
    assert packnet_tf.load(path).tasks == net.tasks
    if since == "released":
        train(dataclasses.replace(plan, fresh=True, epochs=1, prune_epoch=0))
        assert packnet_tf.load(path).tasks == ("moss", "shades")
    if since == "added":
        shutil.copy(f"{path}.progress/pack.keras", path)
        train(plan)
        assert packnet_tf.load(path).tasks == ("moss", "fern", "shades")


@pytest.mark.slow
def test_a_first_task_that_goes_on_beside_its_base_ends_as_one_that_was_not_killed(
    place, monkeypatch
):
    plan = task_plan(place, adopt="original", adopt_epochs=1, flip=True, crop=True)
    train(plan)
    whole = trainer_runs.numbers(packnet_tf.load(place / "pack.keras"))
    (place / "pack.keras").unlink()
    kill(plan, monkeypatch)
    train(plan)
    net = packnet_tf.load(place / "pack.keras")
    assert net.tasks == ("original", "shades")
    assert same(trainer_runs.numbers(net), whole)


def replace_class(folder):
    for split in ("train", "validation", "test"):
        (folder / split / "light").rename(folder / split / "bright")


def add_image(folder):
    shutil.copy(folder / "train" / "dark" / "00.png", folder / "train" / "dark" / "more.png")


def replace_image(folder):
    Image.new("RGB", (16, 16)).save(folder / "validation" / "dark" / "00.png")


def remove_image(folder):
    (folder / "train" / "dark" / "00.png").unlink()


def check_refused(change, place, backup):
    """A run is not continued on a changed folder, which is then as it was again."""
    folder = place / "shades"
    shutil.copytree(folder, backup)
    change(folder)
    text = "'.*shades' has changed: .* Bring back the old ones, or add --fresh to start over"
    with pytest.raises(ValueError, match=text):
        train(task_plan(place))
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def test_continuing_on_a_folder_that_has_changed_is_refused(place, tmp_path_factory, monkeypatch):
    kill(task_plan(place), monkeypatch)
    for change in (replace_class, add_image, replace_image):
        check_refused(change, place, tmp_path_factory.mktemp("backup") / "shades")
    add_image(place / "shades")
    train(task_plan(place, fresh=True, epochs=1, prune_epoch=0))
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)


def test_continuing_on_a_folder_that_is_split_anew_is_refused(place, tmp_path_factory, monkeypatch):
    shutil.rmtree(place / "shades" / "validation")
    kill(task_plan(place), monkeypatch)
    check_refused(remove_image, place, tmp_path_factory.mktemp("backup") / "shades")


def test_other_test_images_and_runs_without_a_note_of_their_images_are_continued(
    place, monkeypatch
):
    kill(task_plan(place), monkeypatch)
    shutil.rmtree(place / "shades" / "test")
    note = place / "pack.keras.progress" / "prepared.json"
    prepared = json.loads(note.read_text())
    assert len(prepared["shades"].pop("images")) == 64
    kill(task_plan(place), monkeypatch, after=2)  # goes on, and notes the images
    assert "images" in json.loads(note.read_text())["shades"]
    note.write_text(json.dumps(prepared))  # as 0.2.0 wrote it
    add_image(place / "shades")
    assert train(task_plan(place)).images["train"] == 25


@pytest.mark.slow
def test_folders_of_tasks_that_are_packed_or_not_begun_may_change(place, monkeypatch):
    plan = short_plan(
        place, tasks=(("shades", str(place / "shades")), ("greys", str(place / "greys")))
    )
    kill(plan, monkeypatch)
    (place / "greys" / "train" / "a" / "00.png").unlink()
    kill(plan, monkeypatch, after=6)
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)
    add_image(place / "shades")
    (place / "greys" / "train" / "b" / "00.png").unlink()
    with pytest.raises(ValueError, match=r"has changed.* with the tasks that are not packed yet"):
        train(plan)
    with pytest.raises(ValueError, match=r"has a task 'shades' already.* leave it out"):
        train(dataclasses.replace(plan, fresh=True))
    rest = dataclasses.replace(plan, tasks=(("greys", str(place / "greys")),), fresh=True)
    assert train(rest).task == "greys"


def test_the_folder_of_a_version_that_kept_every_tasks_ratio_is_continued(place, monkeypatch):
    kill(task_plan(place), monkeypatch)
    path = place / "pack.keras.progress" / "checkpoint.npz"
    facts, values = checkpoint.load(path)
    assert facts["settings"]["prune"] == "a function"
    facts["settings"]["prune"] = ["a function"]
    checkpoint.save(path, facts, values)
    assert train(task_plan(place)).task == "shades"


def test_a_diverged_run_says_how_to_go_on_and_goes_on_at_a_lower_rate(place):
    with pytest.raises(FloatingPointError, match=r"diverged: .* a lower learning_rate") as error:
        train(task_plan(place, learning_rate=1e30))
    assert "the first one: the same command begins the task again" in str(error.value)
    assert not list(place.glob("*.progress/checkpoint.npz"))  # no epoch of NaN is kept
    report = train(task_plan(place, learning_rate=0.05))
    assert report.accuracy["retrained"] > 0
