"""Promise 2: phase, owners and claims are variables, so rolling weights back rolls them back."""

import copy

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import (
    Scores,
    backed_up_run,
    claims,
    compiled,
    data,
    fit,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    run_python,
    same,
    values,
)

REMEDY = (
    "Cannot commit task 'birds': it was pruned, but its weights have since been restored "
    "from before the prune, so every weight is claimed again. To keep the best epoch of "
    "retraining, write EarlyStopping(restore_best_weights=True, start_from_epoch=prune_epoch); to "
    "go on from the restored weights, call net.prune(ratio), retrain, and net.commit()."
)


@pytest.fixture
def birds():
    """A pack with an open task, its compiled model, and data."""
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    return net, compiled(net.add_task("birds", layers.Dense(3))), *data(trunk)


def best(*scores, **kwargs):
    """`Scores` and an `EarlyStopping` that restores the best epoch."""
    early = keras.callbacks.EarlyStopping(
        "score", mode="max", patience=len(scores), restore_best_weights=True, **kwargs
    )
    return [Scores(*scores), early]


def test_phase_owners_and_claims_are_weights_of_the_model(birds):
    net, model, *_ = birds
    weights = {id(weight) for weight in model.weights}
    assert id(model.phase) in weights
    for weight in net.state.weights.values():
        for variable in (weight.owner, weight.claim, weight.packed, weight.trainable):
            assert id(variable) in weights
    trainable = {id(weight) for weight in model.trainable_weights}
    for weight in net.state.weights.values():
        assert id(weight.trainable) in trainable
        assert not trainable & {id(weight.owner), id(weight.claim), id(weight.packed)}
    assert id(model.phase) not in trainable


def test_the_phase_goes_from_training_to_retraining_to_committed(birds):
    net, model, *_ = birds
    assert int(model.phase) == 0
    net.prune(0.5)
    assert int(model.phase) == 1
    net.commit()
    assert int(model.phase) == 2
    assert int(net.task_model("birds").phase) == 2


@pytest.mark.parametrize("packing_first", [True, False])
def test_early_stopping_that_restores_from_before_the_prune_is_refused(birds, packing_first):
    net, model, x, y = birds
    callbacks = [*best(9, 1, 2), packnet_tf.PackNetCallback(0.5, prune_epoch=1)]
    if packing_first:
        callbacks.reverse()
        callbacks[1:] = callbacks[:0:-1]  # the score still comes before those who read it
    with pytest.raises(RuntimeError) as error:
        fit(model, x, y, *callbacks, epochs=3)
    assert str(error.value) == REMEDY
    assert net.tasks == ("one",)
    assert int(model.phase) == 0
    free = {path: owner == 0 for path, owner in owners(net).items()}
    assert all(np.array_equal(claims(net)[path] > 0, free[path]) for path in free)
    # The remedy works.
    net.prune(0.5)
    net.commit()
    assert net.tasks == ("one", "birds")


@pytest.mark.parametrize("packing_first", [True, False])
def test_early_stopping_that_restores_from_after_the_prune_commits_that_epoch(birds, packing_first):
    net, model, x, y = birds
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((kernels(net), logits(model, x)))
    )
    others = [watch, *best(9, 1, 3, 2, start_from_epoch=1)]
    packing = packnet_tf.PackNetCallback(0.5, prune_epoch=1)
    fit(model, x, y, *([packing, *others] if packing_first else [*others, packing]), epochs=4)
    assert net.tasks == ("one", "birds")
    trained, answers = seen[2]
    for path, weight in net.state.weights.items():
        owner, value = values([weight.owner, weight.packed])
        assert np.array_equal(value[owner == 2], trained[path][owner == 2])
    assert np.array_equal(logits(net.task_model("birds"), x), answers)
    assert not np.array_equal(seen[3][1], answers)


def test_a_caller_ordered_callback_list_that_restores_after_the_commit_is_refused(birds):
    net, model, x, y = birds
    packing = packnet_tf.PackNetCallback(0.5, prune_epoch=1)
    callbacks = keras.callbacks.CallbackList(
        [packing, *best(9, 2, 1, start_from_epoch=1)], model=model, epochs=3, verbose=0
    )
    with pytest.raises(RuntimeError, match="Cannot set the weights of the model of task 'birds'"):
        model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=callbacks)
    assert net.tasks == ("one", "birds")


def test_weights_set_back_to_before_the_prune_are_refused(birds):
    net, model, *_ = birds
    before = model.get_weights()
    net.prune(0.5)
    pruned = model.get_weights()
    model.set_weights(before)
    assert int(model.phase) == 0
    with pytest.raises(RuntimeError) as error:
        net.commit()
    assert str(error.value) == REMEDY
    model.set_weights(pruned)
    net.commit()
    assert net.tasks == ("one", "birds")


def test_weights_set_back_within_the_same_phase_are_committed(birds):
    net, model, x, _ = birds
    net.prune(0.5)
    kept, answers = model.get_weights(), logits(model, x)
    jolt(model)
    assert not np.array_equal(logits(model, x), answers)
    model.set_weights(kept)
    net.commit()
    assert np.array_equal(logits(net.task_model("birds"), x), answers)


@pytest.mark.parametrize(
    "verb",
    [
        lambda net: net.commit(),
        lambda net: net.task_model("one"),
        lambda net: net.unpack("one"),
        lambda net: net.save("never_written.keras"),
    ],
    ids=["commit", "task_model", "unpack", "save"],
)
def test_owners_rolled_back_to_before_a_commit_are_noticed(birds, verb, tmp_path, monkeypatch):
    net, *_ = birds
    monkeypatch.chdir(tmp_path)
    path, weight = next(iter(net.state.weights.items()))
    weight.owner.assign(np.zeros(weight.owner.shape, "uint8"))
    with pytest.raises(RuntimeError) as error:
        verb(net)
    assert str(error.value) == (
        f"The owners of layer '{path}' are not what commit left: weights from before the commit "
        "of task 'one' were restored over them. Restore the newer weights, or open the last saved "
        "pack with packnet_tf.load."
    )
    assert list(tmp_path.iterdir()) == []


def test_model_checkpoint_keeps_weights_that_can_be_loaded_back(birds, tmp_path):
    net, model, x, y = birds

    def checkpoint(name):
        return keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=True)

    fit(model, x, y, checkpoint("before.weights.h5"), epochs=1)
    net.prune(0.5)
    fit(model, x, y, checkpoint("after.weights.h5"), epochs=1)
    claimed, answers = claims(net), logits(model, x)
    model.load_weights(tmp_path / "before.weights.h5")
    with pytest.raises(RuntimeError) as error:
        net.commit()
    assert str(error.value) == REMEDY
    model.load_weights(tmp_path / "after.weights.h5")
    assert same(list(claims(net).values()), list(claimed.values()))
    net.commit()
    assert np.array_equal(logits(net.task_model("birds"), x), answers)


def test_model_checkpoint_keeps_whole_models(birds, tmp_path):
    net, model, x, y = birds
    answers = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: answers.append(logits(model, x))
    )
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    packing = packnet_tf.PackNetCallback(0.5, prune_epoch=1)
    fit(model, x, y, watch, checkpoint, packing, epochs=2)
    assert net.tasks == ("one", "birds")
    for epoch, expected in enumerate(answers):
        loaded = keras.saving.load_model(tmp_path / f"{epoch + 1}.keras")
        assert np.array_equal(logits(loaded, x), expected)
        assert int(loaded.phase) == epoch


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    net, history = backed_up_run(tmp_path_factory.mktemp("backup"))
    return owners(net), kernels(net), values(net.task_model("two").variables), history.epoch


@pytest.mark.parametrize("die_at", [*slow(1), 3])  # before and after the prune
def test_a_run_killed_mid_task_and_started_again_gives_the_same_owners(
    die_at, uninterrupted, tmp_path
):
    backup = tmp_path / "backup"
    done = run_python(
        """
        import sys
        from helpers.pack_helpers import backed_up_run
        backed_up_run(sys.argv[1], int(sys.argv[2]))
        """,
        backup,
        die_at,
    )
    assert done.returncode == 99, done.stderr
    net, history = backed_up_run(backup)
    expected_owners, expected_kernels, variables, epochs = uninterrupted
    assert history.epoch == [0, 1, 2, 3][die_at:]
    assert epochs == [0, 1, 2, 3]
    assert net.tasks == ("one", "two")
    assert same(list(owners(net).values()), list(expected_owners.values()))
    assert same(list(kernels(net).values()), list(expected_kernels.values()))
    assert same(values(net.task_model("two").variables), variables)


class Traced(layers.Layer):
    """Counts how often Python runs its call: once per trace, and never in a compiled step."""

    calls = 0

    def call(self, x):
        Traced.calls += 1
        return x


@pytest.mark.parametrize("how", [{}, {"jit_compile": True}, {"steps_per_execution": 3}], ids=str)
def test_pruning_traces_no_new_train_step(how):
    inputs = keras.Input((12,))
    trunk = keras.Model(inputs, Traced()(layers.Dense(8)(inputs)))
    net = packnet_tf.PackNet(trunk)
    model = compiled(net.add_task("one", layers.Dense(3)), "adam", **how)
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: counts.append(Traced.calls)
    )
    fit(model, *data(trunk), count, packnet_tf.PackNetCallback(0.5, prune_epoch=2), epochs=4)
    assert counts == [counts[0]] * 4
    assert net.tasks == ("one",)


def test_a_step_compiled_before_the_prune_sees_it():
    """The state is read, not baked in: released weights take no part in a step traced earlier."""
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)), keras.optimizers.SGD(0.1))
    x, y = data(model)
    fit(model, x, y, epochs=1)
    net.prune(0.75)
    released = {path: claim == 0 for path, claim in claims(net).items()}
    fit(model, x, y, epochs=1)
    for path, value in kernels(net).items():
        assert released[path].any()
        assert not value[released[path]].any()
        assert value[~released[path]].all()


def test_an_old_task_keeps_its_place_when_later_models_are_rolled_back():
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    x, _ = data(trunk)
    answers = logits(net.task_model("one"), x)
    model = net.add_task("two", layers.Dense(3))
    start = model.get_weights()
    jolt(model)
    model.set_weights(start)
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    net.discard()
    pack_task(net, "two")
    assert np.array_equal(logits(net.task_model("one"), x), answers)


def test_importing_the_library_starts_nothing():
    """Devices and hosts are configured between the import and the first use."""
    run = run_python(
        """
        import keras, packnet_tf, tensorflow as tf
        packnet_tf.PackNet, packnet_tf.PackNetCallback, packnet_tf.PackTrainer, packnet_tf.load
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, parts)
        print(len(tf.config.list_logical_devices("CPU")))
        """
    )
    assert run.stdout.split() == ["2"], run.stderr


@pytest.mark.parametrize("how", ["copy", "file"])
def test_a_rollback_is_known_of_in_copies_and_files_too(how, tmp_path):
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    before = model.get_weights()
    net.prune(0.5)
    model.set_weights(before)
    if how == "copy":
        again = copy.deepcopy(net)
    else:
        net.save(tmp_path / "pack.keras")
        again = packnet_tf.load(tmp_path / "pack.keras")
    for pack in (net, again):
        with pytest.raises(RuntimeError, match="restored from before the prune"):
            pack.commit()
    again.prune(0.5)
    again.commit()


def test_a_fit_that_ends_before_its_prune_does_not_forget_a_rollback():
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)))
    before = model.get_weights()
    net.prune(0.5)
    model.set_weights(before)
    with pytest.warns(UserWarning, match="before the prune"), pytest.raises(RuntimeError):
        fit(model, *data(model), packnet_tf.PackNetCallback(0.5, prune_epoch=9), epochs=1)
    with pytest.raises(RuntimeError, match="restored from before the prune"):
        net.commit()


@pytest.mark.parametrize("overlay", [None, 0.5])
def test_weights_set_back_to_between_two_prunes_are_refused(overlay):
    net = packed(mlp_trunk(), one=0.5)
    model = compiled(net.add_task("birds", layers.Dense(3), overlay=overlay))
    net.prune_to(0.625)
    kept = model.get_weights()
    net.prune_to(0.75)
    model.set_weights(kept)
    with pytest.raises(RuntimeError, match="before the prune, so some released weights are"):
        net.commit()
    net.prune_to(0.75)
    net.commit()
    assert net.tasks == ("one", "birds")
