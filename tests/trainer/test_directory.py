"""What a run keeps in its directory, and what it finds there."""

import csv
import dataclasses
import json
import resource
import signal
import types

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.pack_helpers import logits, mlp_trunk, pack_task
from helpers.short_runs import quick, tasks
from packnet_tf.trainer.logs import Logs


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A run of three tasks with equal shares: its directory and history."""
    directory = tmp_path_factory.mktemp("run")
    trunk = mlp_trunk()
    trainer = quick(packnet_tf.PackNet(trunk), prune="equal_shares", directory=directory)
    history = trainer.fit(tasks(trunk, "a", "b", "c"))
    return types.SimpleNamespace(directory=directory, history=history)


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("broken", [0, 1])
def test_an_epoch_whose_last_step_breaks_the_weights_is_not_kept(broken, validated, tmp_path):
    """Its loss is finite: that of each step is taken before the step."""
    trunk, epochs = mlp_trunk(), []
    (task,) = tasks(trunk, "a", held_out=validated)
    x, y = task.train
    task = dataclasses.replace(task, train=(100 * x, y))

    def trainer(rate):
        return quick(
            packnet_tf.PackNet(trunk),
            directory=tmp_path,
            batch_size=len(x),
            optimizer=keras.optimizers.SGD,
            learning_rate=rate,
            on_epoch=lambda name, row: epochs.append(row["loss"]),
        )

    said = "the first one: the same command begins" if broken == 0 else "goes on from there"
    with pytest.raises(FloatingPointError, match=said):
        trainer(lambda epoch: 3e38 if epoch == broken else 1e-6).fit([task])
    assert len(epochs) == broken
    trainer(1e-6).fit([task])
    assert len(epochs) == 3
    assert np.all(np.isfinite(epochs))


def test_the_directory_holds_pack_and_history(three):
    assert packnet_tf.load(three.directory / "pack.keras").tasks == ("a", "b", "c")
    assert not (three.directory / "checkpoint.npz").exists()
    written = json.loads((three.directory / "history.json").read_text())
    assert written == three.history
    entry = written["a"]
    for moment in ("before_prune", "after_prune", "retrained", "test"):
        assert set(entry[moment]) == {"loss", "accuracy"}
    row = entry["epochs"][0]
    assert row["steps"] == 2  # 48 examples in batches of 32
    assert row["examples_per_second"] > 0
    assert entry["retrained"]["accuracy"] == entry["epochs"][-1]["val_accuracy"]
    lines = str(three.history).splitlines()
    assert lines[0].split() == [
        "task", "prune_ratio", "before", "the", "prune", "after", "it", "retrained", "test",
        "capacity", "left", "seconds",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[2:]] == ["a", "b", "c"]


def test_what_is_packed_already_is_not_packed_again(tmp_path):
    trunk = mlp_trunk()
    both = tasks(trunk, "a", "b", held_out=False)
    first = packnet_tf.PackNet(trunk)
    quick(first, directory=tmp_path).fit(both[:1])
    again = packnet_tf.PackNet(trunk)
    history = quick(again, directory=tmp_path).fit(both)
    assert again.tasks == ("a", "b")
    x = both[0].train[0]
    assert np.array_equal(logits(again.task_model("a"), x), logits(first.task_model("a"), x))
    assert list(history) == ["a", "b"]


def test_what_was_done_to_the_pack_since_is_kept(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    a, b, c = tasks(trunk, "a", "b", "c", held_out=False)
    quick(net, directory=tmp_path).fit([a, b])
    net.notes["by"] = "me"
    net.release("b")
    quick(net, directory=tmp_path).fit([a])
    assert (net.tasks, net.notes) == (("a",), {"by": "me"})
    pack_task(net, "hand")
    quick(net, directory=tmp_path).fit([a, c])
    assert net.tasks == ("a", "hand", "c")
    assert packnet_tf.load(tmp_path / "pack.keras").tasks == net.tasks


def test_what_another_process_has_packed_since_is_kept(tmp_path):
    trunk = mlp_trunk()
    net, other = packnet_tf.PackNet(trunk), packnet_tf.PackNet(trunk)
    a, b, c = tasks(trunk, "a", "b", "c", held_out=False)
    quick(net, directory=tmp_path).fit([a])
    quick(other, directory=tmp_path).fit([a, b])
    quick(net, directory=tmp_path).fit([a, b, c])
    assert net.tasks == ("a", "b", "c")
    x = a.train[0]
    assert np.array_equal(logits(net.task_model("b"), x), logits(other.task_model("b"), x))


def test_a_resumed_run_may_measure_what_its_first_epochs_did_not(tmp_path):
    trunk = mlp_trunk()

    def stop(task, row):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, on_epoch=stop).fit(
            tasks(trunk, "a", held_out=False)
        )
    quick(packnet_tf.PackNet(trunk), directory=tmp_path).fit(tasks(trunk, "a"))
    with (tmp_path / "logs" / "a" / "epochs.csv").open() as file:
        first, *others = csv.DictReader(file)
    assert first["val_loss"] == ""
    assert others
    assert all(float(row["val_loss"]) > 0 for row in others)


def test_metadata_of_a_task_are_in_the_pack(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    (a,) = tasks(trunk, "a")
    a = dataclasses.replace(a, metadata={"data": "birds/", "size": (12, 12)})
    quick(net, directory=tmp_path).fit(a)
    found = packnet_tf.load(tmp_path / "pack.keras").metadata("a")
    assert found.pop("committed")[:2] == "20"
    assert found == {"data": "birds/", "size": [12, 12]}


# -- The logs of a task -------------------------------------------------------------------------


def test_every_task_leaves_its_history_and_a_table_of_its_epochs(three):
    for name, entry in three.history.items():
        folder = three.directory / "logs" / name
        assert json.loads((folder / "history.json").read_text()) == entry
        with (folder / "epochs.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["val_loss"]) for row in rows] == [
            row["val_loss"] for row in entry["epochs"]
        ]
        assert [row["phase"] for row in rows] == [row["phase"] for row in entry["epochs"]]


def test_tensorboard_gets_scalars_and_owners(three):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(three.directory / "logs" / "b"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss", "val_accuracy", "sparsity", "owners/first", "share/a", "share/b"} <= tags


def test_the_logs_of_a_task_of_the_same_name_are_replaced(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    (a,) = tasks(trunk, "a")
    logs = tmp_path / "logs"
    quick(net, logs=logs, tensorboard=True).fit(a)
    first = {path.name for path in (logs / "a").iterdir()}
    net.release("a")
    quick(net, logs=logs, tensorboard=True).fit(a)
    again = {path.name for path in (logs / "a").iterdir()}
    assert len(again) == len(first) == 3
    assert first & again == {"history.json", "epochs.csv"}
    assert list(tmp_path.iterdir()) == [logs]


def test_a_full_disk_under_tensorboard_is_said_in_a_sentence(tmp_path):
    pytest.importorskip("tensorboard")
    entry = {"epochs": [{"epoch": 1, "loss": 0.5}]}  # 19 bytes as CSV
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, limits[1]))  # files end here, as on a full disk
    try:
        with pytest.raises(OSError, match="Make room") as error:
            Logs(tmp_path, "auto").epoch("a", entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == (
        f"Cannot write TensorBoard's files to '{tmp_path / 'a'}': File too large. Make room there "
        "and try again."
    )
