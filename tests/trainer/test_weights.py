"""Examples count as their weights and the weights of their classes say."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import compiled, data, functional, mlp_trunk, same, values, weights_of
from helpers.short_runs import quick
from packnet_tf import Task

WEIGHTS = {0: 3.0, 2: 0.5}


def examples():
    """24 examples of three classes, with weights of their own."""
    x, y = data(mlp_trunk())
    return x, y, np.linspace(0.0, 2.0, len(y), dtype=np.float32)


def batched(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(8)


def run(train, **options):
    """Packs a task; returns what it has made of the weights, and the history."""
    keras.utils.set_random_seed(3)
    net = packnet_tf.PackNet(mlp_trunk())
    history = quick(net, metrics=[]).fit([Task("a", layers.Dense(3), train, **options)])
    return values([weight.packed for weight in weights_of(net).values()]), history["a"]


def factors(y):
    return np.array([WEIGHTS.get(label, 1.0) for label in y.tolist()], np.float32)


def test_weights_of_classes_multiply_those_of_examples():
    x, y, w = examples()
    weighted, _ = run(batched(x, y, w), class_weight=WEIGHTS)
    assert same(weighted, run(batched(x, y, factors(y) * w))[0])


@pytest.mark.slow
def test_weights_do_what_they_do_in_fit():
    x, y, w = examples()

    def by_fit(batches, **options):
        keras.utils.set_random_seed(3)
        net = packnet_tf.PackNet(mlp_trunk())
        head = layers.Dense(3)
        keras.utils.set_random_seed(0)  # as the trainer does
        model = compiled(net.add_task("a", head), keras.optimizers.SGD(0.05, momentum=0.9))
        callback = packnet_tf.PackNetCallback(0.5, 2, retrain_learning_rate=0.005)
        history = model.fit(batches, epochs=3, verbose=0, callbacks=[callback], **options)
        return values([weight.packed for weight in weights_of(net).values()]), history.history

    for batches, options in ((batched(x, y), {"class_weight": WEIGHTS}), (batched(x, y, w), {})):
        expected, losses = by_fit(batches, **options)
        found, entry = run(batches, **options)
        assert same(found, expected)
        assert [row["loss"] for row in entry["epochs"]] == losses["loss"]


@pytest.mark.slow
def test_validation_counts_the_weights_of_examples_and_not_those_of_classes():
    x, y, w = examples()
    _, entry = run((x, y), validation=(x, y, w), test=batched(x, y, np.zeros_like(w)))
    assert entry["test"]["loss"] == 0.0
    _, other = run((x, y), validation=(x, y), class_weight={0: 1.0})
    assert entry["retrained"]["loss"] != other["retrained"]["loss"]
    assert other["retrained"]["loss"] == run((x, y), validation=(x, y))[1]["retrained"]["loss"]


@pytest.mark.parametrize("kind", ["dataset", "a list", *slow("arrays", "function", "one-hot")])
def test_balanced_counts_the_classes_of_the_training_data(kind, capsys):
    x, _, _ = examples()
    y = np.repeat([0, 1], [6, 18])
    one_hot = keras.losses.CategoricalCrossentropy(from_logits=True)
    train = {
        "arrays": (x, y),
        "a list": (x, y.tolist()),
        "dataset": batched(x, y),
        "function": lambda epoch: batched(x, y),
        "one-hot": (x, np.eye(3, dtype=np.float32)[y]),
    }[kind]
    net = packnet_tf.PackNet(mlp_trunk())
    loss = {"loss": one_hot} if kind == "one-hot" else {}
    trainer = quick(net, verbose=True, epochs=1, retrain_epochs=0, **loss)
    trainer.fit(Task("a", layers.Dense(3), train, class_weight="balanced"))
    assert "a: weights by class 0: 2, 1: 0.667" in capsys.readouterr().out


def test_an_interrupted_run_with_weights_ends_as_one_that_was_not(tmp_path):
    x, y, w = examples()
    seen = []

    def interrupt(task, numbers):
        seen.append((task, numbers["epoch"], numbers["phase"], "val_loss" in numbers))
        if len(seen) == 1:
            raise OSError("the network is down")

    def go(directory, **options):
        keras.utils.set_random_seed(3)
        net = packnet_tf.PackNet(mlp_trunk())
        task = Task("a", layers.Dense(3), (x, y, w), (x, y, w), class_weight="balanced")
        quick(net, directory=directory, **options).fit(task)
        return values([weight.packed for weight in weights_of(net).values()])

    with pytest.raises(OSError, match="network"):
        go(tmp_path / "parts", on_epoch=interrupt)
    found = go(tmp_path / "parts", on_epoch=interrupt)
    assert same(found, go(tmp_path / "whole"))
    assert seen == [
        ("a", 0, "training", True), ("a", 1, "training", True), ("a", 2, "retraining", True),
    ]  # fmt: skip


def test_heads_of_several_outputs_are_refused_and_leave_the_pack_as_it_was():
    trunk = mlp_trunk()
    x, y = data(trunk)
    inputs = keras.Input((8,))
    outputs = {"species": layers.Dense(3)(inputs), "age": layers.Dense(1)(inputs)}
    head = keras.Model(inputs, outputs)
    net = packnet_tf.PackNet(trunk)
    labels = {"species": y, "age": y.astype("float32")}
    losses = {"species": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "age": "mse"}
    trainer = quick(net, loss=losses, metrics=[])
    with pytest.raises(ValueError, match="class_weight is for tasks with one output"):
        trainer.fit(Task("a", head, (x, labels), class_weight={0: 2.0}))
    assert net.open_model is None
    model = net.add_task("a", head)
    model.compile("sgd", losses)
    with pytest.raises(ValueError, match="single output"):
        model.fit(x, labels, class_weight={0: 2.0}, verbose=0)


def test_a_head_of_one_output_has_weights_for_two_classes():
    trunk = mlp_trunk()
    x, y = data(trunk)
    y = np.minimum(y, 1).astype("float32")
    found = []
    for weights in ({0: 1.0, 1: 5.0}, {0: 1.0}):
        keras.utils.set_random_seed(3)
        net = packnet_tf.PackNet(trunk)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        trainer = quick(net, loss=loss, metrics=[])
        trainer.fit(Task("a", layers.Dense(1), (x, y), class_weight=weights))
        found.append(values([weight.packed for weight in weights_of(net).values()]))
    assert not same(*found)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0}])
def test_labels_of_several_classes_have_no_class_weights(class_weight):
    x, y, _ = examples()
    several = np.eye(3, dtype=np.float32)[y] + np.eye(3, dtype=np.float32)[(y + 1) % 3]
    net = packnet_tf.PackNet(mlp_trunk())
    trainer = quick(net, loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=[])
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="several classes"):
        trainer.fit(Task("a", layers.Dense(3), batched(x, several), class_weight=class_weight))


def test_on_epoch_is_a_function():
    with pytest.raises(ValueError, match="on_epoch"):
        packnet_tf.PackTrainer(packnet_tf.PackNet(functional(layers.Dense(2))), on_epoch="wandb")
