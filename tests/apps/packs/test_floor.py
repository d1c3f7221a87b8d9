"""The linear head that a task becomes if its training ends below it."""

import dataclasses
import re

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.image_folders import task_plan, write_place
from packnet_tf.apps.packs import job
from packnet_tf.apps.packs.floor import is_below
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
        r"task is that head on the pack's frozen weights, ([\d.]+)%, and takes none of the "
        r"free ones",
        capsys.readouterr().out,
    )
    assert net.capacity().free == 1.0
    assert set(report.accuracy) == {"retrained", "test"}
    assert set(net.results("shades")) == {"chance", "retrained", "test"}
    assert float(said[1]) == pytest.approx(100 * net.results("shades")["retrained"], abs=0.06)
    assert report.prune_ratio == report.capacity == 1.0
