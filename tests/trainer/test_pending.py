"""Tasks that are made when their turn comes, and what the directory keeps of that."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers import trainer_runs
from helpers.pack_helpers import data, mlp_trunk, owners, packed, same, values
from helpers.short_runs import quick, tasks
from packnet_tf import PendingTask


class Stopped(Exception):
    pass


def stop(net, entry):
    """A `finish` at which a run ends: the task is committed, and not kept yet."""
    raise Stopped


def test_a_pending_task_is_made_of_the_pack_as_it_is_by_then():
    trunk, seen = mlp_trunk(), {}
    net = packnet_tf.PackNet(trunk)
    ready = {task.name: task for task in tasks(trunk, "a", "b")}

    def prepare(name):
        def made(pack, memory):
            seen[name] = pack.tasks
            return ready[name]

        return made

    kept = []
    trainer = quick(net, on_commit=lambda name: kept.append((name, net.tasks)))
    trainer.fit([PendingTask(name, prepare(name)) for name in ready])
    assert seen == {"a": (), "b": ("a",)}
    assert kept == [("a", ("a",)), ("b", ("a", "b"))]


def test_a_pending_task_trains_as_one_that_was_ready():
    trunk = mlp_trunk()

    def trained(pending):
        net = packnet_tf.PackNet(trunk)
        found = tasks(trunk, "a", "b")
        if pending:
            found = [PendingTask(t.name, lambda net, memory, t=t: t) for t in found]
        quick(net).fit(found)
        return [v for w in net.state.weights.values() for v in values([w.packed, w.owner])]

    assert same(trained(True), trained(False))


def test_what_is_found_out_is_remembered_by_a_run_that_goes_on(tmp_path):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    found = []

    def prepare(net, memory):
        found.append(memory.setdefault("choice", len(found)))
        return task

    trainer = quick(packnet_tf.PackNet(trunk), directory=tmp_path)
    with pytest.raises(Stopped):
        trainer.fit([PendingTask("a", prepare, stop)])
    net = packnet_tf.PackNet(trunk)
    quick(net, directory=tmp_path).fit([PendingTask("a", prepare)])
    assert found == [0, 0]
    assert net.tasks == ("a",)


def test_a_base_that_a_task_adopts_is_kept_before_the_task_is_trained(tmp_path):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    adopted = []

    def prepare(net, memory):
        if not net.tasks:
            adopted.append(net.adopt("base", 0.5))
        return task

    trainer = quick(packnet_tf.PackNet(trunk), directory=tmp_path)
    with pytest.raises(Stopped):
        trainer.fit([PendingTask("a", prepare, stop)])
    assert packnet_tf.load(tmp_path / "pack.keras").base == "base"
    net = packnet_tf.PackNet(trunk)
    quick(net, directory=tmp_path).fit([PendingTask("a", prepare)])
    assert net.tasks == ("base", "a")
    assert len(adopted) == 1


def test_a_finish_may_replace_the_task_and_is_done_before_it_is_kept(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)

    def finish(net, entry):
        net.release("a")
        net.add_task("a", layers.Dense(3), claim_ratio=0.0)
        net.commit()
        entry["retrained"] = {"accuracy": 0.25}

    (task,) = tasks(trunk, "a")
    history = quick(net, directory=tmp_path).fit([PendingTask("a", lambda *_: task, finish)])
    kept = packnet_tf.load(tmp_path / "pack.keras")
    assert kept.tasks == ("a",)
    assert kept.results("a")["retrained"] == history["a"]["retrained"]["accuracy"] == 0.25
    assert all(np.all(owner == 0) for owner in owners(kept).values())


def test_rates_of_a_task_are_multiplied():
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    trainer = quick(packnet_tf.PackNet(trunk))
    history = trainer.fit([dataclasses.replace(task, rate_factors=(2.0, 3.0))])
    found = [row["learning_rate"] for row in history["a"]["epochs"]]
    assert found == pytest.approx([0.1, 0.1, 0.015])


def test_a_run_goes_on_with_the_settings_that_it_was_begun_with(tmp_path):
    trunk = mlp_trunk()
    first = quick(packnet_tf.PackNet(trunk), directory=tmp_path, settings={"images": [96, 96]})
    first.resume()
    again = quick(packnet_tf.PackNet(trunk), directory=tmp_path, settings={"images": [64, 64]})
    text = r"had images=\[96, 96\], this one has images=\[64, 64\]"
    with pytest.raises(ValueError, match=text):
        again.resume()


def test_a_run_keeps_its_settings_where_the_pack_that_it_restores_has_tasks(tmp_path):
    settings = {"images": [96, 96]}
    quick(packed(mlp_trunk(), a=0.5), directory=tmp_path, settings=settings).resume()
    for _ in range(2):
        net = packnet_tf.load(tmp_path / "pack.keras")
        quick(net, directory=tmp_path, settings=settings).resume()
        assert json.loads((tmp_path / "settings.json").read_text()) == settings


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, ValueError])
def test_what_stops_between_the_commit_and_its_saving_leaves_the_task_to_be_packed(
    error, kept, tmp_path
):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    net, calls, named = packnet_tf.PackNet(trunk), [], []

    def finish(net, entry):
        calls.append(net.tasks)
        if len(calls) == 1:
            raise error

    directory = tmp_path if kept else None
    trainer = quick(net, directory=directory, verbose=True, on_commit=named.append)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        trainer.fit([PendingTask("a", lambda *_: task, finish)])
    assert net.tasks == ()
    assert named == []
    if kept:
        assert packnet_tf.load(tmp_path / "pack.keras").tasks == ()
    history = trainer.fit([PendingTask("a", lambda *_: task, finish)])
    assert calls == [("a",), ("a",)]
    assert list(history) == named == ["a"]
    assert history["a"]["retrained"]


def test_the_name_of_a_task_is_said_again_where_saving_was_not_heard_of(tmp_path):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    named = []

    def fails(name):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, on_commit=fails).fit([task])
    net = packnet_tf.PackNet(trunk)
    quick(net, directory=tmp_path, on_commit=named.append).fit([task])
    assert named == ["a"]
    assert net.tasks == ("a",)


@pytest.mark.parametrize("answer", [None, 1, "other"])
def test_a_preparation_that_makes_no_such_task_is_refused(answer):
    trunk = mlp_trunk()
    (other,) = tasks(trunk, "b")
    net = packnet_tf.PackNet(trunk)
    made = other if answer == "other" else answer
    text = "prepare of the pending task 'a' returned .*; expected a packnet_tf.Task of that name"
    with pytest.raises(ValueError, match=text):
        quick(net).fit([PendingTask("a", lambda *_: made)])
    assert net.open_model is None


def test_what_no_file_can_hold_is_refused_by_name(tmp_path):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    net = packnet_tf.PackNet(trunk)
    with pytest.raises(ValueError, match=r"The settings of the run cannot be saved: 'size' is"):
        quick(net, settings={"size": object()})

    def prepare(net, memory):
        memory["accuracy"] = np.float32(0.5)
        return task

    with pytest.raises(ValueError, match=r"'accuracy' is .*Write float\(x\)"):
        quick(net, directory=tmp_path).fit([PendingTask("a", prepare)])


@pytest.mark.parametrize("name", ["settings.json", "prepared.json"])
@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_damaged_file_of_a_run_is_refused_with_its_name(name, text, tmp_path):
    trunk = mlp_trunk()
    (task,) = tasks(trunk, "a")
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    trainer = quick(packnet_tf.PackNet(trunk), directory=tmp_path, settings={"a": 1})
    with pytest.raises(ValueError, match=f"{name}' is damaged: "):
        trainer.fit([PendingTask("a", lambda *_: task)])


def test_settings_that_a_later_run_leaves_out_are_not_forgotten(tmp_path):
    trunk = mlp_trunk()
    for settings in ({"a": 1, "b": 2}, {"a": 1}):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, settings=settings).resume()
    with pytest.raises(ValueError, match="had b=2, this one has b=3"):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, settings={"b": 3}).resume()


def test_another_tasks_ratio_may_change_while_one_is_unfinished(tmp_path):
    trunk = mlp_trunk()
    first, second = tasks(trunk, "a", "b")
    pending = PendingTask("a", lambda *_: first, stop)
    trainer = quick(packnet_tf.PackNet(trunk), directory=tmp_path, prune=[0.5, 0.0])
    with pytest.raises(Stopped):
        trainer.fit([pending, second])
    with pytest.raises(ValueError, match=r"of task 'a' .* had prune=0.5, this one has prune=0.25"):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, prune=[0.25, 0.0]).fit([first, second])
    net = packnet_tf.PackNet(trunk)
    quick(net, directory=tmp_path, prune=[0.5, 0.25]).fit([first, second])
    assert net.tasks == ("a", "b")


@pytest.mark.parametrize("kind", ["arrays", "dataset", "function"])
def test_a_run_stopped_after_its_last_epoch_ends_as_one_that_was_not(kind, tmp_path):
    """The statistics at the commit are measured on the data in the same order, too."""
    trunk = trainer_runs.trunk()
    x, y = data(trunk, size=48)

    def run(directory, finish=None):
        keras.utils.set_random_seed(11)
        source = {  # a new one, as a process that starts anew has it
            "arrays": (x, y),
            "dataset": trainer_runs.augmented(x, y),
            "function": lambda epoch: trainer_runs.augmented(x, y),
        }[kind]
        task = packnet_tf.Task("a", layers.Dense(3), source)
        net = packnet_tf.PackNet(trunk)
        quick(net, directory=directory).fit([PendingTask("a", lambda *_: task, finish)])
        return trainer_runs.numbers(net)

    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stop)
    assert same(run(tmp_path / "stopped"), run(tmp_path / "whole"))
