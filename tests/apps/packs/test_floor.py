"""A task that ends below its linear head."""

import dataclasses
import gc
import pathlib
import re
import shutil
import weakref

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.image_folders import task_plan, write_place
from packnet_tf.apps.packs import job, rates
from packnet_tf.apps.packs.floor import is_below
from packnet_tf.apps.packs.overlay import SHARE
from packnet_tf.apps.packs.training import train


def test_as_many_images_as_the_linear_head_are_not_below_it():
    for right in range(1, 200):
        assert not is_below(float(np.float32(right / 200)), right / 200)
        assert is_below(float(np.float32((right - 1) / 200)), right / 200)


def test_a_trunk_without_moving_statistics_has_a_floor_too(tmp_path):
    place = write_place(tmp_path)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="features")(inputs)
    trunk = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    trunk.trainable_variables[0].assign(np.random.default_rng(0).normal(size=(3, 3, 3, 8)) * 0.1)
    trunk.save(place / "plain.keras")
    worst = task_plan(
        place, trunk=str(place / "plain.keras"), adopt="base", optimizer="sgd", learning_rate=5.0
    )
    train(worst)
    found = packnet_tf.load(place / "pack.keras").results("shades")
    assert found["retrained"] >= found["linear_head"] - 0.1


@pytest.mark.parametrize("killed", [False, True])
def test_a_task_below_a_linear_head_becomes_that_head(killed, tmp_path, monkeypatch, capsys):
    place = write_place(tmp_path)
    real_begin, real_save, saves = job.begin, packnet_tf.PackNet.save, []

    def begin(*arguments, **more):
        return dataclasses.replace(
            real_begin(*arguments, **more), kept_head=1.1
        )  # nothing reaches it

    def save(net, path):
        saves.append(path)
        if killed and len(saves) == 2:  # the first one is before the first step
            raise OSError("the power is gone")
        real_save(net, path)

    monkeypatch.setattr(job, "begin", begin)
    monkeypatch.setattr(packnet_tf.PackNet, "save", save)
    if killed:
        with pytest.raises(OSError, match="the power is gone"):
            train(task_plan(place))
        assert not (place / "pack.keras").exists()
    report = train(task_plan(place))
    net = packnet_tf.load(place / "pack.keras")
    said = re.search(
        r"shades: training ended at [\d.]+% of validation images, below the linear head, so the "
        r"task is a linear head on the pack's frozen weights, ([\d.]+)% of validation images "
        r"right, and takes none of the free weights",
        capsys.readouterr().out,
    )
    assert net.capacity().free == 1.0
    assert set(report.accuracy) == {"retrained", "test"}
    assert set(net.results("shades")) == {"chance", "retrained", "test"}
    assert float(said[1]) == pytest.approx(100 * net.results("shades")["retrained"], abs=0.06)
    assert report.prune_ratio == report.capacity == 1.0


@pytest.fixture(scope="module")
def with_base(tmp_path_factory):
    """A folder with a pack of a base and the task `greys`."""
    place = write_place(tmp_path_factory.mktemp("base"))
    train(task_plan(place, task="greys", adopt="base"))
    return place


def heads_that_nothing_reaches(monkeypatch, of_overlays):
    """Makes heads better than any task, and those of overlays worse, if not `of_overlays`."""
    real_begin = job.begin

    def begin(*arguments, overlay, **more):
        begun = real_begin(*arguments, overlay=overlay, **more)
        return dataclasses.replace(begun, kept_head=1.1 * (of_overlays or overlay is None))

    monkeypatch.setattr(job, "begin", begin)


def test_a_task_below_its_head_is_tried_with_an_overlay(with_base, tmp_path, monkeypatch, capsys):
    place = pathlib.Path(shutil.copytree(with_base, tmp_path, dirs_exist_ok=True))
    shutil.copy(place / "pack.keras", place / "at_once.keras")
    free = packnet_tf.load(place / "pack.keras").capacity().free
    at_once = train(task_plan(place, pack=str(place / "at_once.keras"), overlay=str(SHARE)))
    assert "Once more" not in capsys.readouterr().out
    heads_that_nothing_reaches(monkeypatch, of_overlays=False)
    report = train(task_plan(place))
    assert re.search(
        r"shades: with weights of its own, training ended at [\d.]+% of validation images, below "
        r"the linear head, 110.0%. Once more, overriding 5% of all packed weights",
        capsys.readouterr().out,
    )
    nets = [packnet_tf.load(place / name) for name in ("pack.keras", "at_once.keras")]
    assert nets[0].capacity().free == free
    first, second = (net.state.record("shades") for net in nets)
    assert first.overlaid == second.overlaid
    assert report.accuracy == at_once.accuracy
    assert report.overrides == at_once.overrides > 0


def test_a_task_below_its_head_by_both_ways_becomes_that_head(
    with_base, tmp_path, monkeypatch, capsys
):
    place = pathlib.Path(shutil.copytree(with_base, tmp_path, dirs_exist_ok=True))
    heads_that_nothing_reaches(monkeypatch, of_overlays=True)
    report = train(task_plan(place))
    printed = capsys.readouterr().out
    assert printed.count("Once more") == 1
    assert printed.count("so the task is a linear head") == 1
    assert report.overrides == 0.0


def test_a_task_whose_overlay_diverges_becomes_that_head(with_base, tmp_path, monkeypatch, capsys):
    place = pathlib.Path(shutil.copytree(with_base, tmp_path, dirs_exist_ok=True))
    heads_that_nothing_reaches(monkeypatch, of_overlays=False)
    monkeypatch.setitem(rates.OVERLAY_FACTORS, "adam", (1e30, 1e30))
    report = train(task_plan(place))
    printed = capsys.readouterr().out
    assert printed.count("Once more") == 1
    assert "with an overlay, training diverged, so the task is a linear head" in printed
    assert report.overrides == 0.0
    assert report.accuracy["retrained"] == report.accuracy["of a linear head"]


@pytest.mark.parametrize("given", [{"claim_ratio": 0.5}, {"prune": "auto"}])
def test_settings_of_tasks_that_own_weights_do_not_keep_one_from_an_overlay(
    given, with_base, tmp_path, monkeypatch
):
    place = pathlib.Path(shutil.copytree(with_base, tmp_path, dirs_exist_ok=True))
    heads_that_nothing_reaches(monkeypatch, of_overlays=False)
    report = train(task_plan(place, **given))
    assert report.overrides == pytest.approx(SHARE, abs=0.01)


def test_the_images_of_the_first_way_are_let_go_before_the_second(with_base, tmp_path, monkeypatch):
    place = pathlib.Path(shutil.copytree(with_base, tmp_path, dirs_exist_ok=True))
    heads_that_nothing_reaches(monkeypatch, of_overlays=False)
    made, alive = [], []

    class Watched(job.Images):
        def __init__(self, *arguments):
            gc.collect()
            alive.append(sum(images() is not None for images in made))
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(job, "Images", Watched)
    train(task_plan(place))
    assert alive == [0, 0]


def test_a_task_that_may_have_no_overlay_becomes_that_head(
    with_base, tmp_path, monkeypatch, capsys
):
    place = pathlib.Path(shutil.copytree(with_base, tmp_path, dirs_exist_ok=True))
    heads_that_nothing_reaches(monkeypatch, of_overlays=True)
    report = train(task_plan(place, overlay="none"))
    printed = capsys.readouterr().out
    assert "Once more" not in printed
    assert printed.count("so the task is a linear head") == 1
    assert report.overrides is None
