"""Tasks that are trained in one way, and then packed in another."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest

import packnet_tf
from helpers.pack_helpers import mlp_trunk, same, values
from helpers.short_runs import quick, tasks
from packnet_tf import PendingTask


class Stopped(Exception):
    pass


def everything(net):
    """The packed values and owners of a pack."""
    return [v for w in net.state.weights.values() for v in values([w.packed, w.owner])]


def two_ways(trunk):
    """A task, and the same with half of the claim."""
    whole, half = (tasks(trunk, "a")[0] for _ in range(2))
    return [whole, dataclasses.replace(half, claim_ratio=0.5)]


def in_two_ways(ways, calls=None):
    """A pending task that trains in the first way, and then in the second, which is kept.

    Args:
        ways: tasks, of which the first is tried first.
        calls: gets a copy of what every `prepare` remembered before.
    """
    calls = [] if calls is None else calls

    def prepare(net, memory):
        calls.append(dict(memory))
        memory.setdefault("seen", len(calls))
        return ways[memory.get("way", 0)]

    def retry(net, entry):
        assert net.tasks == ("a",)
        assert net.results("a")["retrained"] == entry["retrained"]["accuracy"]
        return {"way": 1} if "way" not in calls[-1] else None

    return PendingTask("a", prepare, retry=retry)


def test_a_task_that_is_tried_in_another_way_is_as_if_that_had_been_the_first(tmp_path):
    trunk = mlp_trunk()
    ways = two_ways(trunk)
    nets = {name: packnet_tf.PackNet(trunk) for name in ("tried", "at once")}
    tried = quick(nets["tried"], directory=tmp_path / "tried").fit(in_two_ways(ways))
    at_once = quick(nets["at once"], directory=tmp_path / "once").fit(ways[1])
    assert same(*map(everything, nets.values()))
    assert tried["a"]["retrained"] == at_once["a"]["retrained"]
    assert len(tried["a"]["epochs"]) == 3
    rows = (tmp_path / "tried" / "logs" / "a" / "epochs.csv").read_text().splitlines()
    assert len(rows) == 4
    assert packnet_tf.load(tmp_path / "tried" / "pack.keras").tasks == ("a",)


@pytest.mark.parametrize("epoch", [1, 2, 4, 6])
def test_a_run_that_ends_in_either_way_goes_on_with_it(epoch, tmp_path):
    trunk, calls, epochs = mlp_trunk(), [], []
    ways = two_ways(trunk)

    def power_cut(task, row):
        epochs.append(row)
        if len(epochs) == epoch:
            raise Stopped

    with pytest.raises(Stopped):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, on_epoch=power_cut).fit(
            in_two_ways(ways, calls)
        )
    before = len(calls)
    net = packnet_tf.PackNet(trunk)
    quick(net, directory=tmp_path, on_epoch=power_cut).fit(in_two_ways(ways, calls))
    assert len(epochs) == 6  # no epoch of either way is trained twice
    assert calls[before] == {**calls[before - 1], "seen": before}
    whole = packnet_tf.PackNet(trunk)
    quick(whole).fit(in_two_ways(ways))
    assert same(*map(everything, (net, whole)))


@pytest.mark.parametrize("returned", [{"share": np.float32(0.5)}, True, "no"])
def test_a_way_that_cannot_be_kept_is_refused_before_the_training_is_lost(returned, tmp_path):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    epochs = []
    trainer = quick(
        packnet_tf.PackNet(trunk), directory=tmp_path, on_epoch=lambda *row: epochs.append(row)
    )
    with pytest.raises(ValueError, match="What retry of the pending task 'a' has returned"):
        trainer.fit([PendingTask("a", lambda *_: task, retry=lambda *_: returned)])
    trainer.fit([PendingTask("a", lambda *_: task)])
    assert len(epochs) == 3


def test_another_way_that_needs_nothing_begins_with_nothing(tmp_path):
    trunk, seen = mlp_trunk(), []
    (task,) = tasks(trunk, "a")

    def prepare(net, memory):
        seen.append(dict(memory))
        if len(seen) == 2:
            raise Stopped
        memory["choice"] = "first"
        return task

    with pytest.raises(Stopped):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path).fit(
            [PendingTask("a", prepare, retry=lambda *_: {})]
        )
    quick(packnet_tf.PackNet(trunk), directory=tmp_path).fit([PendingTask("a", prepare)])
    assert seen == [{}, {}, {}]


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_training_that_diverges_may_go_another_way(goes_on, tmp_path):
    trunk, entries = mlp_trunk(), []
    ways = two_ways(trunk)

    def prepare(net, memory):
        return ways[1] if memory else dataclasses.replace(ways[0], learning_rate=1e30)

    def retry(net, entry):
        entries.append(entry)
        assert net.tasks == (() if entry.get("diverged") else ("a",))
        return {"lower": "rate"} if goes_on and len(entries) == 1 else None

    net = packnet_tf.PackNet(trunk)
    trainer = quick(net, directory=tmp_path)
    if not goes_on:
        with pytest.raises(FloatingPointError):
            trainer.fit([PendingTask("a", prepare, retry=retry)])
        assert len(entries) == 1
        return
    history = trainer.fit([PendingTask("a", prepare, retry=retry)])
    assert [entry.get("diverged", False) for entry in entries] == [True, False]
    assert "diverged" not in history["a"]
    assert net.tasks == ("a",)


def test_nothing_holds_the_data_of_a_way_when_the_next_one_is_prepared():
    trunk, alive = mlp_trunk(), []

    def prepare(net, memory):
        gc.collect()
        alive.append([way() is not None for way in made])
        way = tasks(trunk, "a")[0]
        made.append(weakref.ref(way))
        return way

    made = []
    pending = PendingTask("a", prepare, retry=lambda *_: {} if len(made) == 1 else None)
    quick(packnet_tf.PackNet(trunk)).fit([pending])
    assert alive == [[], [False]]
