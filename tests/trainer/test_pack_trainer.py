"""PackTrainer: the same verbs as by hand, one engine, and what it keeps of a run."""

import csv
import dataclasses
import json
import types

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    compiled,
    conv_trunk,
    data,
    fit,
    logits,
    mlp_trunk,
    pack_task,
    run_python,
    values,
    weights_of,
)
from helpers.short_runs import quick, tasks
from packnet_tf import Auto, Task


def owned(net):
    counts = {path: weight.owner_counts(len(net.tasks)) for path, weight in weights_of(net).items()}
    return {path: count[1:] for path, count in counts.items()}


# -- Packing -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A run of three tasks with equal shares: its directory, pack and history."""
    directory = tmp_path_factory.mktemp("run")
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    trainer = quick(net, prune="equal_shares", directory=directory)
    history = trainer.fit(tasks(trunk, "a", "b", "c"))
    return types.SimpleNamespace(directory=directory, net=net, history=history)


def test_a_list_of_tasks_is_packed_with_exact_shares(three):
    assert three.net.tasks == ("a", "b", "c")
    assert owned(three.net) == {"first": [64, 64, 64], "second": [43, 43, 42]}
    assert list(three.history) == ["a", "b", "c"]
    assert [entry["prune_ratio"] for entry in three.history.values()][-1] == 0


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(
            lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
            {},
            id="sgd",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1, use_ema=True),
            {},
            id="adamw",
        ),
        pytest.param(
            keras.optimizers.Adam, {"jit_compile": True}, id="xla", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda rate: keras.optimizers.SGD(rate, gradient_accumulation_steps=2),
            {"steps_per_execution": 4},
            id="accumulation",
        ),
    ],
)
def test_earlier_tasks_are_bit_exact(make, options):
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    one, two = tasks(trunk, "a", "b", size=64, held_out=False)
    quick(net, optimizer=make, **options).fit(one)
    x, _ = one.train
    before = logits(net.task_model("a"), x)
    start = values([weight.packed for weight in weights_of(net).values()])
    quick(net, optimizer=make, prune=0.0, **options).fit(two)
    assert np.array_equal(logits(net.task_model("a"), x), before)
    after = values([weight.packed for weight in weights_of(net).values()])
    assert not any(map(np.array_equal, start, after))  # the second task has trained


@pytest.mark.parametrize("policy", ["mixed_float16", *slow("mixed_bfloat16")])
def test_mixed_precision_trains_and_forgets_nothing(policy):
    keras.config.set_dtype_policy(policy)
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    one, two = tasks(trunk, "a", "b", held_out=False)
    quick(net).fit(one)
    before = logits(net.task_model("a"), one.train[0])
    history = quick(net).fit(two)
    assert np.array_equal(logits(net.task_model("a"), one.train[0]), before)
    assert all(np.isfinite(row["loss"]) for row in history["b"]["epochs"])


def test_the_loop_does_what_fit_does():
    """The same batches in the same order: the same weights, to the bit."""
    import tensorflow as tf

    def run(train):
        keras.utils.set_random_seed(2)
        trunk = conv_trunk()
        net = packnet_tf.PackNet(trunk)
        x, y = data(trunk, size=40)
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        train(net, batches)
        return net

    def by_trainer(net, batches):
        trainer = quick(net, epochs=3, retrain_epochs=2, retrain_learning_rate=0.01)
        trainer.fit([Task("a", layers.Dense(3), batches)])

    def by_fit(net, batches):
        head = layers.Dense(3)
        keras.utils.set_random_seed(0)  # as the trainer does
        model = compiled(net.add_task("a", head), keras.optimizers.SGD(0.05, momentum=0.9))
        callback = packnet_tf.PackNetCallback(0.5, 3, retrain_learning_rate=0.01)
        model.fit(batches, epochs=5, verbose=0, callbacks=[callback])

    one, two = run(by_trainer), run(by_fit)
    for path, weight in weights_of(one).items():
        assert np.array_equal(one.owners()[path], two.owners()[path])
        assert np.array_equal(*values([weight.packed, weights_of(two)[path].packed]))


def test_moving_averages_are_what_is_committed():
    made = []

    def averaging(rate):
        made.append(keras.optimizers.SGD(rate, use_ema=True, ema_momentum=0.9))
        return made[-1]

    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    quick(net, optimizer=averaging, retrain_epochs=2).fit(tasks(trunk, "a", held_out=False))
    [optimizer] = made
    places = {id(variable): i for i, variable in enumerate(optimizer._trainable_variables)}
    for weight in weights_of(net).values():
        average = optimizer._model_variables_moving_average[places[id(weight.trainable)]]
        own = np.array(weight.owner) == 1
        assert np.array_equal(np.array(weight.packed)[own], np.array(average)[own])


def test_a_task_that_is_pruned_at_its_end_is_not_committed_as_zeros():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    make = lambda rate: keras.optimizers.SGD(rate, use_ema=True)  # noqa: E731
    quick(net, optimizer=make, retrain_epochs=0).fit(tasks(trunk, "a", held_out=False))
    for weight in weights_of(net).values():
        assert np.all(np.array(weight.packed)[np.array(weight.owner) == 1] != 0)


def test_one_trace_serves_a_task_through_its_phases():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk, size=48)
    traces = []

    @keras.saving.register_keras_serializable("tests")
    class Counting(layers.Dense):
        def call(self, inputs, training=None):
            if training:
                traces.append(1)
            return super().call(inputs)

    schedule = packnet_tf.polynomial_decay(0.0, 0.5, 0, 5, frequency=2)
    for name, way in {"a": 0.5, "b": schedule, "c": Auto(0.5, step=0.8, patience=1)}.items():
        task = Task(name, Counting(3), (x, y), (x, y))
        quick(net, prune=way, batch_size=16).fit(task)
        # One more for the symbolic call that builds the head into the model.
        assert len(traces) <= 1, (name, len(traces))
        traces.clear()


def test_a_single_task_needs_no_list():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    (task,) = tasks(trunk, "a", held_out=False)
    assert list(quick(net, epochs=1).fit(task)) == ["a"]
    assert net.tasks == ("a",)


def test_a_task_may_claim_a_part_and_the_last_one_all_that_is_left():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    one, two = tasks(trunk, "a", "b", held_out=False)
    one = Task(one.name, one.head, one.train, claim_ratio=0.25)
    quick(net, epochs=1, prune=0.0).fit([one, two])
    assert owned(net) == {"first": [48, 144], "second": [32, 96]}


def test_a_callback_and_the_trainer_share_one_engine():
    """A task begun with fit may go on in the next one's trainer: the pack knows no difference."""
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    fit(compiled(net.add_task("a", layers.Dense(3))), x, y, packnet_tf.PackNetCallback(0.5, 1))
    quick(net).fit(tasks(trunk, "b"))
    net.add_task("c", layers.Dense(3))
    net.prune(0.5)
    net.commit()
    assert net.tasks == ("a", "b", "c")


# -- Other ways to prune -------------------------------------------------------------------------


def test_gradual_pruning_in_the_trainer_is_exact_and_ends_with_the_training():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    schedule = packnet_tf.polynomial_decay(0.0, 0.7, begin_step=0, end_step=1000, frequency=2)
    history = quick(net, prune=schedule, retrain_epochs=2).fit(tasks(trunk, "a"))
    assert owned(net) == {"first": [192 - round(0.7 * 192)], "second": [128 - round(0.7 * 128)]}
    sparsities = [row["sparsity"] for row in history["a"]["epochs"]]
    assert 0 < sparsities[1] < 0.1 < sparsities[2] == sparsities[3]
    assert [row["phase"] for row in history["a"]["epochs"]] == ["training"] * 2 + ["retraining"] * 2


def test_auto_goes_back_to_the_last_good_state():
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    (task,) = tasks(trunk, "a", size=96)
    auto = Auto(max_drop=0.02, step=0.5, patience=1)
    history = quick(
        net, epochs=12, retrain_epochs=1, learning_rate=0.1, retrain_learning_rate=0.0, prune=auto
    ).fit([task])
    entry = history["a"]
    kept = [row for row in entry["rounds"] if row["kept"]]
    failed = [row for row in entry["rounds"] if not row["kept"]]
    before = entry["before_prune"]["accuracy"]
    assert before > 0.5  # it has learnt something that can be lost
    assert len(failed) == 1, entry["rounds"]
    assert failed[0]["retrained"] < before - 0.02
    assert entry["prune_ratio"] == pytest.approx(kept[-1]["sparsity"] if kept else 0.0)
    expected = kept[-1]["retrained"] if kept else before
    assert entry["retrained"]["accuracy"] == pytest.approx(expected)  # retrained at a rate of 0
    assert entry["retrained"]["accuracy"] >= before - 0.02


def test_auto_stops_where_nothing_is_left_to_release():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    history = quick(net, epochs=1, prune=Auto(max_drop=1.0, step=0.9)).fit(tasks(trunk, "a"))
    assert all(row["kept"] for row in history["a"]["rounds"])
    assert history["a"]["prune_ratio"] > 0.98


# -- What is kept --------------------------------------------------------------------------------


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


def test_tensorboard_gets_scalars_and_owners(three):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(three.directory / "logs" / "b"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"loss", "val_accuracy", "sparsity", "owners/first", "share/a", "share/b"} <= tags


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


def test_ctrl_c_ends_with_the_command_to_continue(tmp_path):
    run = run_python(
        """
        import os, signal, sys
        import packnet_tf
        import tensorflow as tf
        from keras import layers
        from helpers.pack_helpers import data, mlp_trunk
        trunk = mlp_trunk()
        pairs = tf.data.Dataset.from_tensor_slices(data(trunk, size=32)).batch(32)
        def batches(epoch):
            if epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return pairs
        def interrupted(jit_compile):
            net = packnet_tf.PackNet(trunk)
            directory = sys.argv[1] + "/" + str(jit_compile)
            trainer = packnet_tf.PackTrainer(net, epochs=3, directory=directory,
                                             jit_compile=jit_compile)
            trainer.fit([packnet_tf.Task("a", layers.Dense(3), batches)])
        try:
            interrupted(True)
        except SystemExit as end:
            print("status", end.code)
        interrupted(False)
        """,
        tmp_path,
    )
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr
    compiled_run, plain_run = run.stdout.split("\nstatus 130\n")
    for jit_compile, output in ((True, compiled_run), (False, plain_run)):
        directory = tmp_path / str(jit_compile)
        said, *command = output[output.index("Interrupted") :].splitlines()
        assert said == (
            f"Interrupted; epochs that were finished are in '{directory}'. To continue:"
        )
        assert command[-1].endswith(f" {tmp_path}")
        assert (directory / "checkpoint.npz").exists()
