"""`Task(overlay=...)`: the trainer packs tasks into a full pack, and resumes them."""

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import conv_trunk, data, logits, packed
from helpers.short_runs import quick
from packnet_tf import Auto, Task
from packnet_tf.trainer.task_training import TaskTraining
from packnet_tf.training.overlay_search import SHARES, OverlaySearch


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


def found(history, name="two"):
    return [(entry["sparsity"], entry["kept"]) for entry in history[name]["rounds"]]


@pytest.fixture
def accuracy_is_the_share(monkeypatch):
    """A task is as accurate as the share of all weights that it claims."""
    evaluate = TaskTraining._evaluate

    def share(training, data):
        is_open = training.net.state.open is not None
        claimed = training.net.state.claimed_share()[0] if is_open else 0.1
        return {**evaluate(training, data), "accuracy": claimed}

    monkeypatch.setattr(TaskTraining, "_evaluate", share)


@pytest.mark.parametrize(
    ("max_drop", "kept"),
    [(0.0, [True, False]), (0.06, [True, True, False]), (0.5, [True] * 4)],
)
def test_an_overlay_has_the_smallest_share_that_is_about_as_good_as_the_best(
    max_drop, kept, accuracy_is_the_share
):
    net, x, y = full()
    before = logits(net.task_model("one"), x)
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay="auto")
    trainer = quick(net, prune=Auto(max_drop=max_drop), directory=None, retrain_epochs=2)
    history = trainer.fit(task)
    shares = [round(220 * share) for share in SHARES]
    assert found(history) == [
        (pytest.approx(1 - share / 220), is_kept)
        for share, is_kept in zip(shares, kept, strict=False)
    ]
    assert net.capacity().sum()["overlaid"]["two"] == shares[sum(kept) - 1]
    assert len(history["two"]["epochs"]) == 2 + 2 * len(kept)
    assert np.array_equal(logits(net.task_model("one"), x), before)


def test_the_task_is_that_of_the_round_that_was_kept(accuracy_is_the_share, monkeypatch):
    ends, real = [], OverlaySearch.epoch_ends

    def epoch_ends(phases, epoch, logs):
        ends.append([np.array(v) for v in phases.model.variables])
        real(phases, epoch, logs)

    monkeypatch.setattr(OverlaySearch, "epoch_ends", epoch_ends)
    net, x, y = full()
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay="auto")
    quick(net, directory=None, prune=Auto(max_drop=0.06), on_epoch=None).fit(task)
    # Two epochs of all weights, then rounds of one: the third is the last, the second is kept.
    model, kept = net.task_model("two"), ends[3]
    assert len(ends) == 5
    by_shape = {(v.shape, v.tobytes()) for v in kept}
    for variable in model.head.weights:
        value = np.array(variable)
        assert (value.shape, value.tobytes()) in by_shape


def test_every_round_of_the_search_begins_from_all_weights(accuracy_is_the_share, monkeypatch):
    starts, real = [], OverlaySearch._begin_round

    def begin_round(phases):
        starts.append([np.array(v) for v in phases.model.trainable_variables])
        real(phases)

    monkeypatch.setattr(OverlaySearch, "_begin_round", begin_round)
    net, x, y = full()
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay="auto")
    quick(net, directory=None, prune=Auto(max_drop=1.0)).fit(task)
    assert len(starts) == len(SHARES)
    for later in starts[1:]:
        assert all(map(np.array_equal, starts[0], later))


def test_a_search_that_cannot_judge_is_refused():
    net, x, y = full()
    with pytest.raises(ValueError, match='overlay="auto" needs validation data, and task'):
        quick(net, directory=None).fit(Task("two", keras.layers.Dense(3), (x, y), overlay="auto"))
    task = Task("two", keras.layers.Dense(3), (x, y), (x, y), overlay="auto")
    with pytest.raises(ValueError, match=r"retraining, and there is none.*overlay=0\.05"):
        quick(net, directory=None, retrain_epochs=0).fit(task)
    assert net.open_model is None


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
