"""What the trainer refuses, and in which words."""

import importlib.util
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.pack_helpers import data, mlp_trunk
from helpers.short_runs import quick, tasks
from packnet_tf import Auto, PackTrainer, Task
from packnet_tf.trainer.data import blank_batch
from packnet_tf.trainer.labels import outside
from packnet_tf.trainer.logs import Logs


def text_of(error_type, call, *args, **kwargs):
    """The text of the error that a call raises."""
    with pytest.raises(error_type) as error:
        call(*args, **kwargs)
    return str(error.value)


# -- Settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 2.5, "3", None, True])
@pytest.mark.parametrize("name", ["epochs", "retrain_epochs"])
def test_epochs_are_whole_numbers_from_0(name, value):
    text = text_of(ValueError, PackTrainer, packnet_tf.PackNet(mlp_trunk()), **{name: value})
    assert text == f"{name} is a whole number from 0; got {value!r}. Write {name}=10."


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("optimizer", "adam", "lambda rate: keras.optimizers.Adam(rate)"),
        ("optimizer", keras.optimizers.Adam(), "lambda rate: keras.optimizers.Adam(rate)"),
        ("criterion", "magnitude", "packnet_tf.magnitude"),
        ("on_epoch", 3, "print"),
    ],
)
def test_functions_are_asked_for_before_anything_trains(name, value, instead):
    text = text_of(ValueError, PackTrainer, packnet_tf.PackNet(mlp_trunk()), **{name: value})
    assert text.startswith(f"{name} is a function that packnet_tf calls; got ")
    assert text.endswith(f" Write {name}={instead}.")


def test_the_callback_takes_a_function_as_criterion():
    text = text_of(ValueError, packnet_tf.PackNetCallback, criterion="magnitude")
    assert text.startswith("criterion is a function that packnet_tf calls; got 'magnitude'.")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_data_to_measure_on_are_looked_at_before_anything_trains(split):
    net, (x, y) = packnet_tf.PackNet(mlp_trunk()), data(mlp_trunk())
    task, epochs = Task("a", layers.Dense(3), (x, y), **{split: x}), []
    trainer = quick(net, on_epoch=lambda task, row: epochs.append(row))
    text = text_of(ValueError, trainer.fit, task)
    assert text.startswith("The data of a task are a tf.data.Dataset of batches")
    assert (net.open_model, epochs) == (None, [])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_data_to_measure_on_without_batches_are_refused_before_anything_trains(split):
    net, (x, y) = packnet_tf.PackNet(mlp_trunk()), data(mlp_trunk())
    none = tf.data.Dataset.from_tensor_slices((x, y)).batch(len(x) + 1, drop_remainder=True)
    epochs = []
    trainer = quick(net, on_epoch=lambda task, row: epochs.append(row))
    task = Task("a", layers.Dense(3), (x, y), **{split: none})
    text = text_of(ValueError, trainer.fit, task)
    assert text.startswith("The validation or test data of a task have no batches: fewer examples")
    assert (net.open_model, epochs) == (None, [])


def test_validation_data_that_are_used_up_are_named():
    net, (x, y) = packnet_tf.PackNet(mlp_trunk()), data(mlp_trunk())
    left = iter([(x, y)])
    spec = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in (x, y))
    once = tf.data.Dataset.from_generator(lambda: left, output_signature=spec)
    text = text_of(ValueError, quick(net).fit, Task("a", layers.Dense(3), (x, y), once))
    assert text.startswith("The validation or test data of task 'a' have no batches. A dataset")


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("step", [1, -1])
def test_labels_that_the_head_has_no_outputs_for_are_named(step, dtype):
    net, (x, y) = packnet_tf.PackNet(mlp_trunk()), data(mlp_trunk())
    labels = (y + step).astype(dtype)
    wrong = next(label for label in labels if not 0 <= label < 3)
    text = text_of(ValueError, quick(net).fit, Task("a", layers.Dense(3), (x, labels)))
    assert text.startswith(f"Task 'a' has the label {wrong}, and the 3 outputs of its head are for")
    assert net.open_model is None


def test_one_hot_labels_are_refused_where_the_loss_takes_numbers():
    net, (x, y) = packnet_tf.PackNet(mlp_trunk()), data(mlp_trunk())
    task = Task("a", layers.Dense(3), (x, np.eye(3, dtype="float32")[y]))
    text = text_of(ValueError, quick(net).fit, task)
    assert text.startswith("The labels of task 'a' have shape (batch, 3), as one-hot labels do")
    assert net.open_model is None
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    quick(net, loss=loss, metrics=["categorical_accuracy"]).fit(task)
    assert net.tasks == ("a",)


def test_labels_of_as_many_steps_as_classes_are_not_one_hot():
    trunk = keras.Sequential([keras.Input((3, 4)), layers.Dense(8)])
    x = np.random.default_rng(0).random((12, 3, 4)).astype("float32")
    net = packnet_tf.PackNet(trunk)
    quick(net).fit(Task("a", layers.Dense(3), (x, np.arange(36).reshape(12, 3) % 3)))
    assert net.tasks == ("a",)


def test_a_label_that_the_loss_ignores_is_not_named():
    labels = [np.array([0, 255, 2]), np.array([3])]
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    assert outside("a", loss, labels, 4) is None
    assert outside("a", loss, labels, 3).startswith("Task 'a' has the label 3, and the 3 outputs")


def test_weights_of_classes_that_the_head_does_not_have_are_refused():
    net, (x, y) = packnet_tf.PackNet(mlp_trunk()), data(mlp_trunk())
    task = Task("a", layers.Dense(3), (x, y), class_weight={7: 50.0})
    text = text_of(ValueError, quick(net).fit, task)
    assert text.startswith("class_weight has a weight for class 7, and the 3 classes are 0 to 2.")


@pytest.mark.parametrize("value", [0, 2.5, "3", True])
@pytest.mark.parametrize("name", ["batch_size", "steps_per_execution"])
def test_sizes_are_whole_numbers_from_1(name, value):
    text = text_of(ValueError, PackTrainer, packnet_tf.PackNet(mlp_trunk()), **{name: value})
    assert text == f"{name} is a whole number from 1; got {value!r}. Write {name}=10."


def test_whole_numbers_of_numpy_are_taken_for_those_of_python():
    net = packnet_tf.PackNet(mlp_trunk())
    numpys = PackTrainer(net, epochs=np.int64(3), batch_size=np.int32(8))
    assert numpys._settings == PackTrainer(net, epochs=3, batch_size=8)._settings


def test_a_step_of_auto_is_named_where_it_is_no_fraction():
    text = text_of(ValueError, Auto, max_drop=0.01, step=1.5)
    assert text.startswith("step is the fraction of the claim that each round releases, a number")


@pytest.mark.parametrize("value", ["on", 1, None])
@pytest.mark.parametrize("name", ["jit_compile", "tensorboard"])
def test_choices_are_true_false_or_auto(name, value):
    text = text_of(ValueError, PackTrainer, packnet_tf.PackNet(mlp_trunk()), **{name: value})
    assert text == f'{name} is True, False or "auto"; got {value!r}. Write {name}="auto".'


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "fast", True])
@pytest.mark.parametrize("name", ["learning_rate", "retrain_learning_rate"])
def test_rates_are_numbers_from_0_or_functions_of_the_epoch(name, value):
    text = text_of(ValueError, PackTrainer, packnet_tf.PackNet(mlp_trunk()), **{name: value})
    assert text == (
        f"{name} is a number from 0, or a function of the epoch; got {value!r}. Write {name}=0.001;"
        " pass a Keras schedule to the optimizer."
    )


def test_a_schedule_of_keras_which_counts_steps_is_no_rate():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
    net = packnet_tf.PackNet(mlp_trunk())
    text = text_of(ValueError, PackTrainer, net, learning_rate=schedule)
    assert text.endswith("; pass a Keras schedule to the optimizer.")


def test_auto_refuses_settings_that_would_never_end():
    assert text_of(ValueError, Auto, max_drop=0.01, step=0.0) == (
        "Auto takes max_drop of at least 0, step between 0 and 1, and patience of at least 1 "
        "epoch; got Auto(max_drop=0.01, step=0.0, patience=3, monitor='accuracy'). Write "
        "Auto(max_drop=0.01)."
    )


# -- Settings and tasks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
    ids=["a_word", "too_many", "over_1", "auto_blind"],
)
def test_what_cannot_be_is_said_before_anything_is_trained(arguments, message):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    trainer = quick(net, **arguments)
    assert text_of(ValueError, trainer.fit, tasks(trunk, "a", held_out=False)) == message
    assert net.open_model is None


def test_auto_watches_only_what_is_measured():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    trainer = quick(net, prune=Auto(0.01, monitor="auc"), metrics=["accuracy"])
    assert text_of(ValueError, trainer.fit, tasks(trunk, "a")) == (
        "Auto monitors 'auc', but the metrics are 'loss', 'accuracy'. Add it to the trainer's "
        "metrics, or write Auto(max_drop=0.01, monitor=...) with one of those, of which higher is "
        "better."
    )
    assert net.open_model is None  # so another task may be added
    assert net.tasks == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metadata": {"at": object()}}, "Metadata of task 'a' cannot be saved: 'at' is <object"),
        ({"metadata": 3}, "Metadata of task 'a' cannot be saved: expected a dict, got 3."),
        ({"reference": {"linear_head": "good"}}, "The result 'linear_head' of task 'a' is 'good'"),
        (
            {"reference": [0.1]},
            "The results of task 'a' are a dict from name to accuracy; got [0.1].",
        ),
        ({"epochs": -1}, "epochs is a whole number from 0; got -1."),
        ({"learning_rate": "fast"}, "learning_rate is a number from 0, or a function of the epoch"),
        ({"overlay": "0.05"}, "overlay is the fraction of all packed weights that the task may"),
        ({"overlay": 0.0}, "Cannot add task 'a' with an overlay: overlay=0.0 is no weight at all."),
        ({"overlay": 0.1, "claim_ratio": 0.5}, "Cannot add task 'a' with an overlay: such a task"),
    ],
)
def test_what_no_pack_takes_of_a_task_is_refused_before_its_training(given, message):
    text = text_of(ValueError, Task, "a", layers.Dense(3), (np.zeros((4, 8)), np.zeros(4)), **given)
    assert text.startswith(message)


def test_settings_that_are_no_dict_are_refused():
    text = text_of(ValueError, PackTrainer, packnet_tf.PackNet(mlp_trunk()), settings=["trunk"])
    assert text == (
        "The settings of the run cannot be saved: expected a dict, got ['trunk']. Write "
        '{"name": "value"}.'
    )


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [("birds", "str"), ([("birds", layers.Dense(3))], "tuple"), ([None], "NoneType")],
    ids=["a_name", "a_tuple", "none"],
)
def test_what_is_no_task_is_refused(wrong, kind):
    net = packnet_tf.PackNet(mlp_trunk())
    assert text_of(ValueError, quick(net).fit, wrong) == (
        f"fit takes a list of packnet_tf.Task; got a {kind}. Write fit([packnet_tf.Task('birds', "
        "head, (images, labels))])."
    )


def test_two_tasks_of_one_name_are_refused():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    assert text_of(ValueError, quick(net).fit, tasks(trunk, "a", "b", "a")) == (
        "Two of these tasks are named 'a'. Give each one a name of its own."
    )
    assert net.tasks == ()


def test_a_task_left_open_by_hand_is_not_lost(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    mine = net.add_task("mine", layers.Dense(3))
    for directory in (None, tmp_path):
        for name in ("b", "mine"):
            trainer = quick(net, directory=directory)
            assert text_of(RuntimeError, trainer.fit, tasks(trunk, name)) == (
                f"Cannot add task '{name}': task 'mine' is not committed yet (training). Finish "
                "it with net.prune(ratio) and net.commit(), or drop it with net.discard()."
            )
    assert net.open_model is mine
    assert not list(tmp_path.iterdir())


# -- Data ----------------------------------------------------------------------------------------


def test_data_of_another_kind_are_refused():
    net = packnet_tf.PackNet(mlp_trunk())
    wrong = Task("a", layers.Dense(3), {"x": 1})
    assert text_of(ValueError, quick(net).fit, wrong) == (
        "The data of a task are a tf.data.Dataset of batches, a keras.utils.PyDataset, arrays "
        "(x, y) or (x, y, sample_weight), or, for training, a function from an epoch to a "
        "tf.data.Dataset; got dict. Write Task(name, head, train=(images, labels))."
    )


def test_a_function_that_gives_no_dataset_is_refused():
    net = packnet_tf.PackNet(mlp_trunk())
    wrong = Task("a", layers.Dense(3), lambda epoch: ([1.0], [2]))
    assert text_of(ValueError, quick(net).fit, wrong) == (
        "The function that gives the training data of a task returned a tuple for epoch 0; "
        "expected a tf.data.Dataset of batches. Write Task(name, head, train=lambda epoch: "
        "dataset.shuffle(1000, seed=epoch).batch(32))."
    )


def test_data_that_end_after_the_first_pass_are_noticed():
    import tensorflow as tf

    trunk = mlp_trunk()
    x, y = data(trunk)
    batches = iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(8))
    once = tf.data.Dataset.from_generator(
        lambda: batches,
        output_signature=(tf.TensorSpec((None, 12)), tf.TensorSpec((None,), tf.int64)),
    )
    trainer = quick(packnet_tf.PackNet(trunk))
    assert text_of(ValueError, trainer.fit, Task("a", layers.Dense(3), once)) == (
        "The training data of task 'a' have no batches in epoch 1. A dataset made from a generator "
        "must begin again for every iterator."
    )


def test_data_of_unknown_shape_are_looked_at():
    import tensorflow as tf

    x, y = data(mlp_trunk(), size=8)
    unknown = tf.data.Dataset.from_generator(lambda: [(x, y)], (tf.float32, tf.int64))
    assert unknown.element_spec[0].shape.rank is None
    images, labels, weights = blank_batch(unknown, 8)
    assert np.array_equal(images, x)
    assert np.array_equal(labels, y)
    assert weights is None


# -- What the process is like --------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it is the backend it needs")
def test_another_backend_is_told_what_to_use():
    net = packnet_tf.PackNet(mlp_trunk())
    assert text_of(ValueError, PackTrainer, net) == (
        "PackTrainer needs Keras's TensorFlow backend; this process runs on "
        f"{keras.backend.backend()}. Use model.fit with a PackNetCallback there, or set "
        "KERAS_BACKEND=tensorflow."
    )


def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert text_of(ValueError, Logs, tmp_path, True) == (
        "tensorboard=True needs the package of that name, which is not installed. Install it (pip "
        "install tensorboard), or leave tensorboard out."
    )
    Logs(tmp_path, "auto")
    assert not list(tmp_path.iterdir())
