"""`Task(overlay=...)`: the trainer packs tasks into a full pack, and resumes them."""

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import conv_trunk, data, logits, packed
from helpers.short_runs import quick
from packnet_tf import Auto, Task


def full():
    keras.utils.set_random_seed(3)
    trunk = conv_trunk()
    return packed(trunk, one=0.0), *data(trunk, size=48)


@pytest.mark.parametrize("prune", [0.5, Auto(max_drop=0.2)], ids=["ratio", "auto"])
def test_a_task_with_an_overlay_is_packed_after_others(prune):
    net, x, y = full()
    before = logits(net.task_model("one"), x)
    head = packnet_tf.linear_head(net, (x, y), overlay=0.2)
    task = Task("two", head, (x, y), (x, y), (x, y), overlay=0.2)
    history = quick(net, prune=prune, directory=None).fit(task)
    places = net.capacity().sum()["overlaid"]["two"]
    assert 0 < places <= round(0.2 * 220)
    assert history["two"]["prune_ratio"] == pytest.approx(1 - places / 220)
    assert history["two"]["epochs"][0]["claimed"] == 1.0
    assert history["two"]["epochs"][-1]["claimed"] == pytest.approx(places / 220)
    assert np.array_equal(logits(net.task_model("one"), x), before)


def test_an_overlay_is_chosen_once_whatever_the_schedule_of_other_tasks():
    net, x, y = full()
    schedule = packnet_tf.polynomial_decay(0.0, 0.75, 1, 4, frequency=1)
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay=0.2)
    history = quick(net, prune=schedule, directory=None).fit(task)
    assert [row["claimed"] for row in history["two"]["epochs"]] == [1.0, 1.0, pytest.approx(0.2)]


@pytest.mark.parametrize("share", [0.2, "auto"])
@pytest.mark.parametrize("epoch", [*slow(1), 3])
def test_an_interrupted_task_with_an_overlay_ends_as_one_that_was_not(epoch, share, tmp_path):
    import tensorflow as tf

    def run(directory, stop=None):
        net, x, y = full()
        stops = [stop]

        def train(number):
            if number == stops[0]:
                stops.clear()
                stops.append(None)
                raise KeyboardInterrupt
            return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)

        task = Task("two", keras.layers.Dense(3), train, (x, y), overlay=share)
        settings = {"directory": directory, "optimizer": keras.optimizers.Adam, "epochs": 2}
        if stop is not None:
            with pytest.raises(SystemExit):
                quick(net, retrain_epochs=2, **settings).fit(task)
            net = packed(conv_trunk())
            net.restore(directory / "pack.keras")
        quick(net, retrain_epochs=2, **settings).fit(task)
        return net, logits(net.task_model("two"), x)

    whole, expected = run(tmp_path / "whole")
    parts, found = run(tmp_path / "parts", epoch)
    assert np.array_equal(found, expected)
    assert parts.capacity() == whole.capacity()
    assert packnet_tf.load(tmp_path / "parts" / "pack.keras").capacity() == whole.capacity()
