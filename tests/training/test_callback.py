"""`PackNetCallback`: the four steps of a task in one `fit`, exactly when and as promised."""

import csv
import warnings

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    SPARSE,
    claims,
    compiled,
    data,
    fit,
    kernels,
    logits,
    mlp_trunk,
    opened,
    pack_task,
    packed,
    values,
)
from packnet_tf.training.phases import OneShot

pytestmark = pytest.mark.any_backend

Callback = packnet_tf.PackNetCallback
TOTAL = {"first": 192, "second": 128}


@pytest.fixture
def net():
    return packnet_tf.PackNet(mlp_trunk())


class Counts(keras.callbacks.Callback):
    """How many weights each layer claims, at the first batch and at the end of every epoch."""

    def __init__(self, net):
        super().__init__()
        self.net, self.at_batch, self.at_end = net, [], []

    def count(self):
        return {path: int(np.count_nonzero(claim)) for path, claim in claims(self.net).items()}

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.at_batch.append(self.count())

    def on_epoch_end(self, epoch, logs=None):
        self.at_end.append(self.count())


@pytest.mark.parametrize("prune_epoch", [0, 1, 2])
def test_it_prunes_exactly_at_the_start_of_the_prune_epoch(net, prune_epoch):
    model, x, y = opened(net)
    counts = Counts(net)
    fit(model, x, y, Callback(0.7, prune_epoch), counts, epochs=3)
    left = {path: total - round(0.7 * total) for path, total in TOTAL.items()}
    expected = [TOTAL] * prune_epoch + [left] * (3 - prune_epoch)
    assert counts.at_batch == counts.at_end == expected
    assert net.tasks == ("one",)
    assert {path: entry["owned"]["one"] for path, entry in net.capacity().items()} == left


@pytest.mark.parametrize(("epochs", "turn"), [(6, 4), *slow((3, 2), (2, 1), (1, 0))])
def test_without_an_epoch_it_prunes_after_two_thirds(net, epochs, turn):
    model, x, y = opened(net)
    history = fit(model, x, y, Callback(0.5), epochs=epochs).history
    assert history["sparsity"] == [0.0] * turn + [0.5] * (epochs - turn)
    assert net.tasks == ("one",)


@pytest.mark.parametrize(
    ("arguments", "said"), [((0.5,), True), ((0.0,), False), ((0.5, 0), False)]
)
def test_a_prune_before_all_training_that_nobody_asked_for_is_said(net, arguments, said):
    model, x, y = opened(net)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(model, x, y, Callback(*arguments), epochs=1)
    assert any("pruned before it has trained" in str(one.message) for one in found) == said


def test_without_an_epoch_or_their_number_it_says_what_to_write(net):
    model, *_ = opened(net)
    callback = Callback(0.5)
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"prune_epoch=20"):
        callback.on_train_begin()
    callback.set_params({"epochs": 3})
    callback.on_train_begin()
    callback.on_epoch_begin(2)
    callback.on_train_end()
    assert net.capacity().free == 0.5


def test_prune_epoch_0_makes_a_pretrained_network_a_task_without_training_it_first(net):
    model, x, y = opened(net)
    before = kernels(net)
    fit(model, x, y, Callback(0.5, 0), epochs=1)
    for path, start in before.items():
        owned = values([net.state.weights[path].owner])[0] == 1
        largest = np.sort(np.abs(start), axis=None)[start.size // 2 :]
        assert np.array_equal(np.sort(np.abs(start[owned])), largest)


@pytest.mark.parametrize(("ratio", "owned"), [(0, 192), (1, 0)])
def test_a_ratio_of_0_keeps_all_and_of_1_nothing(net, ratio, owned):
    model, x, y = opened(net)
    fit(model, x, y, Callback(prune_ratio=ratio, prune_epoch=1), epochs=2)
    assert net.capacity()["first"]["owned"] == {"one": owned}
    assert net.capacity().free == 1 - owned / 192


@pytest.mark.parametrize("first", [True, False], ids=["packing_first", "packing_last"])
def test_shares_are_in_the_logs_wherever_it_stands(net, first, tmp_path):
    model, x, y = opened(net)
    seen = []
    others = [
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs))),
    ]
    packing = Callback(0.75, prune_epoch=1)
    history = fit(model, x, y, *([packing, *others] if first else [*others, packing]), epochs=3)
    claimed, sparsity = [1.0, 0.25, 0.25], [0.0, 0.75, 0.75]
    assert history.history["claimed"] == claimed
    assert history.history["sparsity"] == sparsity
    assert [logs["claimed"] for logs in seen] == claimed
    assert [logs["sparsity"] for logs in seen] == sparsity
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["claimed"]) for row in rows] == claimed
    assert [float(row["sparsity"]) for row in rows] == sparsity


def test_shares_are_of_all_weights_and_of_the_claim_in_a_later_task():
    net = packed(mlp_trunk(), one=0.5)
    model, x, y = opened(net, name="two")
    history = fit(model, x, y, Callback(0.75, prune_epoch=1))
    assert history.history["claimed"] == [0.5, 0.125]
    assert history.history["sparsity"] == [0.0, 0.75]


@pytest.mark.parametrize(
    "wrap", [list, tuple, lambda c: [list(c)]], ids=["list", "tuple", "nested"]
)
def test_callbacks_come_in_any_sequence(net, wrap):
    model, x, y = opened(net)
    model.fit(x, y, epochs=1, verbose=0, callbacks=wrap([Callback(0.5, 0)]))
    assert net.tasks == ("one",)


def test_a_single_callback_needs_no_list(net):
    model, x, y = opened(net)
    model.fit(x, y, epochs=1, verbose=0, callbacks=Callback(0.5, 0))
    assert net.tasks == ("one",)


def test_a_fit_without_it_commits_nothing(net):
    model, x, y = opened(net)
    fit(model, x, y, epochs=1)
    model.fit(x, y, verbose=0)
    assert net.tasks == ()
    assert net.open_model is model


@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        ({}, {"validation_split": 0.25}),
        ({}, {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}),
        ({"steps_per_execution": 2}, {}),
        ({"jit_compile": True}, {}),
        ({"run_eagerly": True}, {}),
    ],
    ids=str,
)
def test_it_works_with_the_options_of_compile_and_fit(net, how, arguments):
    model, x, y = opened(net, optimizers.SGD(0.1), **how)
    counts = Counts(net)
    fit(model, x, y, counts, Callback(0.5, 1), **arguments)
    assert counts.at_end == [TOTAL, {"first": 96, "second": 64}]
    assert net.tasks == ("one",)


def test_it_works_with_an_initial_epoch(net):
    model, x, y = opened(net)
    counts = Counts(net)
    callback = Callback(0.5, prune_epoch=3)
    with pytest.warns(UserWarning, match="before the prune of task 'one'"):
        fit(model, x, y, counts, callback, epochs=2)
    assert net.tasks == ()
    fit(model, x, y, counts, callback, initial_epoch=2, epochs=5)
    left = {"first": 96, "second": 64}
    assert counts.at_batch == [TOTAL, TOTAL, TOTAL, left, left]
    assert net.tasks == ("one",)


def test_a_start_after_the_prune_epoch_prunes_at_once(net):
    model, x, y = opened(net)
    counts = Counts(net)
    fit(model, x, y, counts, Callback(0.5, prune_epoch=1), initial_epoch=4, epochs=5)
    assert counts.at_batch == [{"first": 96, "second": 64}]
    assert net.tasks == ("one",)


def test_a_dataset_is_taken_as_by_fit(net):
    import tensorflow as tf

    model, x, y = opened(net)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model.fit(dataset, validation_data=dataset, epochs=2, verbose=0, callbacks=[Callback(0.5, 1)])
    assert net.tasks == ("one",)


def test_a_fit_too_short_to_prune_warns_and_leaves_the_task_open(net):
    model, x, y = opened(net)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        fit(model, x, y, Callback(0.5, prune_epoch=2), epochs=2)
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert (
        "This fit ends after epoch 1, before the prune of task 'one' at the start of epoch 2: the "
        "task will be left open. Use more epochs or a smaller prune_epoch, or go on with another "
        "fit(initial_epoch=2)."
    ) in texts
    assert net.open_model is model
    assert net.tasks == ()
    fit(model, x, y, Callback(0.5, prune_epoch=2), initial_epoch=2, epochs=3)
    assert net.tasks == ("one",)


@pytest.mark.parametrize("name", ["one", "Vögel"])
def test_a_fit_stopped_before_the_prune_warns_and_leaves_the_task_open(name, net):
    model, x, y = opened(net, name=name)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True)
    )
    with pytest.warns(UserWarning, match="stopped before its prune") as caught:
        fit(model, x, y, Callback(0.5, prune_epoch=2), stop, epochs=4)
    assert [str(w.message) for w in caught if issubclass(w.category, UserWarning)] == [
        f"Training of task '{name}' stopped before its prune at the start of epoch 2, so the task "
        "is left open with all that it claims. Go on with fit(initial_epoch=...), or call "
        "net.prune(ratio), retrain, and net.commit(). With EarlyStopping write "
        "start_from_epoch=prune_epoch."
    ]
    assert net.open_model is model
    fit(model, x, y, Callback(0.5, prune_epoch=2), initial_epoch=1, epochs=3)
    assert net.tasks == (name,)


def test_a_fit_stopped_after_the_prune_is_committed(net):
    model, x, y = opened(net)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1)
    )
    history = fit(model, x, y, Callback(0.5, prune_epoch=1), stop, epochs=9)
    assert history.epoch == [0, 1]
    assert net.tasks == ("one",)


def test_accuracy_around_the_prune_is_kept(net):
    model, x, y = opened(net)
    callback = Callback(0.9, prune_epoch=1, validation_data=(x, y))
    assert callback.around_prune == {}
    fit(model, x, y, callback)
    assert set(callback.around_prune) == {"before", "after"}
    for results in callback.around_prune.values():
        assert set(results) == {"loss", "accuracy"}
    assert callback.around_prune["before"]["loss"] != callback.around_prune["after"]["loss"]


def test_around_prune_evaluates_what_the_prune_leaves(net):
    model, x, y = opened(net)
    expected = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: expected.append(float(SPARSE(y, logits(model, x))))
    )
    callback = Callback(1, prune_epoch=0, validation_data=(x, y))
    fit(model, x, y, watch, callback, epochs=1, batch_size=24)
    # The whole trunk is released: the head's bias, zeros, is all that answers.
    assert np.isclose(callback.around_prune["before"]["loss"], expected[0], rtol=1e-5)
    assert np.isclose(callback.around_prune["after"]["loss"], np.log(3), rtol=1e-5)


def test_evaluating_around_the_prune_does_not_change_the_run():
    results = []
    for watched in (False, True):
        keras.utils.set_random_seed(3)
        net = packnet_tf.PackNet(mlp_trunk())
        model, x, y = opened(net, "adam")
        callback = Callback(0.5, prune_epoch=1, validation_data=(x, y) if watched else None)
        history = fit(model, x, y, callback, epochs=3, shuffle=False)
        results.append((history.history, logits(model, x)))
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])


def test_the_second_run_of_a_callback_packs_another_task(net):
    callback = Callback(0.5, prune_epoch=1)
    for name in ("one", "two"):
        model, x, y = opened(net, name=name)
        fit(model, x, y, callback)
    assert net.tasks == ("one", "two")


def test_a_model_of_no_pack_is_refused(tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    plain = keras.Sequential([keras.Input((12,)), layers.Dense(3)], name="plain")
    opened(net)[0].save(tmp_path / "one.keras")
    alone = keras.saving.load_model(tmp_path / "one.keras")
    for model in (plain, alone):
        with pytest.raises(ValueError) as error:
            fit(compiled(model), *data(model), Callback(0.5, 0))
        assert str(error.value) == (
            "PackNetCallback works on the model that net.add_task returns; got "
            f"'{model.name}', which belongs to no pack. Put augmentation into the data or the "
            "trunk rather than around the model. A task model loaded from a file belongs to no "
            "pack either: open the pack with packnet_tf.load and use net.open_model."
        )


@pytest.mark.parametrize("prune_epoch", [-1, 1.5, True, float("inf"), "2"])
def test_a_prune_epoch_that_is_no_epoch_is_refused(prune_epoch):
    with pytest.raises(ValueError) as error:
        Callback(0.5, prune_epoch)
    assert str(error.value) == (
        f"prune_epoch is the 0-based epoch whose start prunes; got {prune_epoch!r}. Write "
        "prune_epoch=20 to train epochs 0 to 19 before the prune, or leave it out to prune after "
        "two thirds of the epochs."
    )


@pytest.mark.parametrize("ratio", [-0.5, 2, float("nan"), "most", None])
def test_a_prune_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError) as error:
        Callback(ratio, 1)
    assert str(error.value) == (
        "prune_ratio is the fraction of the task's claim that pruning releases, a number from 0 "
        f"to 1; got {ratio!r}. Write prune_ratio=0.75 for three quarters."
    )


def test_the_phases_are_those_of_the_open_task_alone():
    net = packnet_tf.PackNet(mlp_trunk())
    done = pack_task(net, "one")
    net.add_task("two", layers.Dense(3))
    with pytest.raises(RuntimeError, match=r"Cannot train task 'one'.*Use net.open_model"):
        OneShot(done, 0.5, 1)
    assert net.tasks == ("one",)


def test_a_task_that_was_pruned_by_hand_is_pruned_up_to_the_ratio(net):
    model, x, y = opened(net)
    net.prune(0.25)
    fit(model, x, y, Callback(0.75, prune_epoch=1), epochs=2)
    assert net.capacity().free == 0.75


def test_a_task_that_was_pruned_further_by_hand_stays_so(net):
    model, x, y = opened(net)
    net.prune(0.75)
    fit(model, x, y, Callback(0.5, prune_epoch=1), epochs=2)
    assert net.capacity().free == 0.75
