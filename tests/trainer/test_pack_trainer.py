"""PackTrainer: the same verbs as by hand, one engine, sentences for what cannot be done."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from pack_helpers import (
    compiled,
    conv_trunk,
    data,
    fit,
    logits,
    mlp_trunk,
    packed,
    run_python,
    values,
    weights_of,
)
from packnet_tf import Auto, PackTrainer, Task


def tasks(trunk, *names, size=48, **kwargs):
    x, y = data(trunk, size=size)
    return [
        Task(name, layers.Dense(3), (x, (y + i) % 3), (x, (y + i) % 3), (x, (y + i) % 3), **kwargs)
        for i, name in enumerate(names)
    ]


def quick(net, **kwargs):
    settings = {"epochs": 2, "retrain_epochs": 1, "learning_rate": 0.05, "verbose": False}
    return PackTrainer(net, **{**settings, **kwargs})


def owned(net):
    counts = {path: weight.owner_counts(len(net.tasks)) for path, weight in weights_of(net).items()}
    return {path: count[1:] for path, count in counts.items()}


def test_a_list_of_tasks_is_packed_with_exact_shares():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    history = quick(net, prune="equal_shares").fit(tasks(trunk, "a", "b", "c"))
    assert net.tasks == ("a", "b", "c")
    assert owned(net) == {"first": [64, 64, 64], "second": [43, 43, 42]}
    assert list(history) == ["a", "b", "c"]
    assert [entry["prune_ratio"] for entry in history.values()][-1] == 0


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(lambda rate: keras.optimizers.SGD(rate, momentum=0.9), {}, id="sgd"),
        pytest.param(
            lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1, use_ema=True),
            {},
            id="adamw",
        ),
        pytest.param(keras.optimizers.Adam, {"jit_compile": True}, id="xla"),
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
    both = tasks(trunk, "a", "b")
    quick(net, optimizer=make, **options).fit(both[:1])
    x, _ = both[0].train
    before = logits(net.task_model("a"), x)
    quick(net, optimizer=make, prune=[0.5, 0.0], **options).fit(
        [Task("b", layers.Dense(3), both[1].train), Task("c", layers.Dense(3), both[0].train)][:2]
    )
    assert np.array_equal(logits(net.task_model("a"), x), before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_and_forgets_nothing(policy):
    keras.config.set_dtype_policy(policy)
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    one, two = tasks(trunk, "a", "b")
    quick(net).fit([one])
    before = logits(net.task_model("a"), one.train[0])
    history = quick(net).fit([two])
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

    schedule = packnet_tf.polynomial_decay(0.0, 0.5, 0, 10, frequency=2)
    for name, way in {"a": 0.5, "b": schedule, "c": Auto(0.5, patience=1)}.items():
        task = Task(name, Counting(3), (x, y), (x, y))
        quick(net, epochs=4, retrain_epochs=3, prune=way, batch_size=16).fit([task])
        # One more for the symbolic call that builds the head into the model.
        assert len(traces) <= 1, (name, len(traces))
        traces.clear()


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


def test_a_task_may_claim_a_part_and_the_last_one_all_that_is_left():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    one, two = tasks(trunk, "a", "b")
    one = Task(one.name, one.head, one.train, claim_ratio=0.25)
    quick(net, prune=0.0).fit([one, two])
    assert owned(net) == {"first": [48, 144], "second": [32, 96]}


def test_the_directory_holds_pack_and_history(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    history = quick(net, directory=tmp_path / "run").fit(tasks(trunk, "a", "b"))
    loaded = packnet_tf.load(tmp_path / "run" / "pack.keras")
    assert loaded.tasks == ("a", "b")
    written = json.loads((tmp_path / "run" / "history.json").read_text())
    assert written == history
    entry = written["a"]
    for moment in ("before_prune", "after_prune", "retrained", "test"):
        assert set(entry[moment]) == {"loss", "accuracy"}
    row = entry["epochs"][0]
    assert row["steps"] == 2  # 48 examples in batches of 32
    assert row["examples_per_second"] > 0
    assert entry["retrained"]["accuracy"] == entry["epochs"][-1]["val_accuracy"]
    lines = str(history).splitlines()
    assert lines[0].split() == [
        "task", "prune_ratio", "before", "the", "prune", "after", "it", "retrained", "test",
        "capacity", "left", "seconds",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[2:]] == ["a", "b"]


def test_what_is_packed_already_is_not_packed_again(tmp_path):
    trunk = mlp_trunk()
    both = tasks(trunk, "a", "b")
    first = packnet_tf.PackNet(trunk)
    quick(first, directory=tmp_path).fit(both[:1])
    again = packnet_tf.PackNet(trunk)
    history = quick(again, directory=tmp_path).fit(both)
    assert again.tasks == ("a", "b")
    x = both[0].train[0]
    assert np.array_equal(logits(again.task_model("a"), x), logits(first.task_model("a"), x))
    assert list(history) == ["a", "b"]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_ctrl_c_ends_with_the_command_to_continue(tmp_path, jit_compile):
    run = run_python(
        f"""
        import os, signal, sys
        import trainer_runs, packnet_tf
        from keras import layers
        from pack_helpers import data
        trunk = trainer_runs.trunk()
        x, y = data(trunk, size=64)
        class Now(packnet_tf.Task):
            pass
        def batches(epoch):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return trainer_runs.augmented(x, y)
        net = packnet_tf.PackNet(trunk)
        trainer = packnet_tf.PackTrainer(net, epochs=3, directory=sys.argv[1],
                                         jit_compile={jit_compile})
        trainer.fit([packnet_tf.Task("a", layers.Dense(3), batches)])
        """,
        tmp_path / "run",
    )
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr
    message = run.stdout[run.stdout.index("Interrupted") :]
    assert "epochs that were finished are in '" in message
    assert str(tmp_path / "run") in message.splitlines()[-1]
    assert (tmp_path / "run" / "checkpoint.npz").exists()


def test_tensorboard_gets_scalars_and_owners(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trunk = mlp_trunk()
    quick(packnet_tf.PackNet(trunk), directory=tmp_path).fit(tasks(trunk, "a"))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"a/loss", "a/val_accuracy", "a/sparsity", "owners/first", "share/a"} <= tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": -1}, "epochs is a whole number from 0; got -1. Write epochs=10."),
        (
            {"retrain_epochs": 2.5},
            "retrain_epochs is a whole number from 0; got 2.5. Write retrain_epochs=10.",
        ),
        (
            {"prune": "equal"},
            "prune='equal' is none of the ways to prune; write prune=\"equal_shares\", a ratio, a "
            "list of ratios, a schedule, or packnet_tf.Auto(max_drop=0.01).",
        ),
        (
            {"prune": [0.5, 0.5]},
            "prune has 2 values for 1 tasks. Give one per task, or a single one for all.",
        ),
        (
            {"prune": 1.5},
            "prune_ratio is the fraction of the task's claim that pruning releases, a number from "
            "0 to 1; got 1.5. Write prune_ratio=0.75 for three quarters.",
        ),
        (
            {"prune": Auto(0.01)},
            "Auto needs validation data, and task 'a' has none. Write Task('a', head, train, "
            "validation).",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(arguments, message):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    with pytest.raises(ValueError) as error:
        quick(net, **arguments).fit([Task("a", layers.Dense(3), data(trunk))])
    assert str(error.value) == message
    assert net.open_model is None


def test_auto_refuses_settings_that_would_never_end():
    with pytest.raises(ValueError) as error:
        Auto(max_drop=0.01, step=0.0)
    assert str(error.value) == (
        "Auto takes max_drop of at least 0, step between 0 and 1, and patience of at least 1 "
        "epoch; got Auto(max_drop=0.01, step=0.0, patience=3, monitor='accuracy'). Write "
        "Auto(max_drop=0.01)."
    )


def test_data_of_another_kind_are_refused():
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError) as error:
        quick(net).fit([Task("a", layers.Dense(3), {"x": 1})])
    assert str(error.value) == (
        "The data of a task are a tf.data.Dataset of batches, arrays (x, y) or (x, y, "
        "sample_weight), or, for training, a function from an epoch to a dataset; got dict. Write "
        "Task(name, head, train=(images, labels))."
    )


def test_a_directory_of_another_pack_is_refused(tmp_path):
    trunk = mlp_trunk()
    quick(packnet_tf.PackNet(trunk), directory=tmp_path).fit(tasks(trunk, "a"))
    other = conv_trunk()
    with pytest.raises(ValueError) as error:
        quick(packnet_tf.PackNet(other), directory=tmp_path).fit(tasks(other, "a"))
    assert str(error.value) == (
        f"'{tmp_path / 'pack.keras'}' is not an earlier state of this pack: its trunk, its policy "
        "or its first tasks (a) differ. Use the trunk, the policy and the tasks that it was made "
        "with, or another directory."
    )


def test_an_interrupted_task_is_not_continued_with_other_settings(tmp_path):
    trunk = mlp_trunk()
    x, y = data(trunk)

    def stop(epoch):
        import tensorflow as tf

        if epoch == 1:
            raise KeyboardInterrupt
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    with pytest.raises(SystemExit) as ended:
        quick(packnet_tf.PackNet(trunk), directory=tmp_path).fit([Task("a", layers.Dense(3), stop)])
    assert ended.value.code == 130
    with pytest.raises(ValueError) as error:
        quick(packnet_tf.PackNet(trunk), directory=tmp_path, epochs=3).fit(
            [Task("a", layers.Dense(3), (x, y))]
        )
    assert str(error.value) == (
        f"The interrupted run of task 'a' in '{tmp_path}' had epochs=2, this one has epochs=3. "
        "Repeat the old settings to continue it, delete 'checkpoint.npz' to start the task again, "
        "or take a new directory."
    )


def test_a_task_left_open_by_hand_is_not_lost(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    net.add_task("mine", layers.Dense(3))
    for directory in (None, tmp_path):
        with pytest.raises(RuntimeError, match="Cannot add task 'b': task 'mine' is not committed"):
            quick(net, directory=directory).fit(tasks(trunk, "b"))
    assert net.open_model.name == "mine"
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_named(tmp_path):
    trunk = mlp_trunk()
    net = packed(trunk, a=0.5)
    net.save(tmp_path / "pack.keras")
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"checkpoint.npz' is damaged: .* Delete it: the task"):
        quick(net, directory=tmp_path).fit(tasks(trunk, "b"))


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
