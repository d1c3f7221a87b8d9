"""PackTrainer: the same verbs as by hand, and one engine."""

import dataclasses

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
    values,
    weights_of,
)
from helpers.short_runs import quick, tasks
from packnet_tf import Auto, Task


def owned(net):
    counts = {path: weight.owner_counts(len(net.tasks)) for path, weight in weights_of(net).items()}
    return {path: count[1:] for path, count in counts.items()}


# -- Packing -------------------------------------------------------------------------------------


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


def test_a_task_may_have_epochs_and_rates_of_its_own():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    first, second = tasks(trunk, "a", "b")
    second = dataclasses.replace(
        second,
        epochs=1,
        retrain_epochs=3,
        learning_rate=0.5,
        retrain_learning_rate=lambda e: 0.1 + e,
    )
    history = quick(net, directory=None).fit([first, second])
    assert [row["learning_rate"] for row in history["a"]["epochs"]] == [0.05, 0.05, 0.005]
    assert [row["learning_rate"] for row in history["b"]["epochs"]] == [0.5, 0.1, 1.1, 2.1]
    assert [row["phase"] for row in history["b"]["epochs"]] == ["training"] + ["retraining"] * 3


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
