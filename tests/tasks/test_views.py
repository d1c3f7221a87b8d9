"""Promise 3: views don't interfere, and looking never mutates."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    TRUNKS,
    compiled,
    conv_trunk,
    data,
    fit,
    jolt,
    kernels,
    logits,
    mlp_trunk,
    pack_task,
    packed,
    packed_layers,
    same,
    state,
    values,
)
from packnet_tf.packing.layers import Packed


def test_views_held_at_once_and_called_in_turn_each_answer_as_their_own_task(trunk):
    net = packed(trunk, one=0.5, two=0.5, three=0)
    x, _ = data(trunk)
    alone = {name: logits(net.task_model(name), x) for name in net.tasks}
    views = {name: net.task_model(name) for name in net.tasks}
    for name in ["one", "two", "three", "three", "one", "two"]:
        assert np.array_equal(logits(views[name], x), alone[name])
    assert not np.array_equal(alone["one"], alone["two"])
    assert not np.array_equal(alone["two"], alone["three"])


def test_models_from_add_task_go_on_answering_as_their_own_task(trunk):
    net = packnet_tf.PackNet(trunk)
    x, _ = data(trunk)
    held = {name: pack_task(net, name, seed=seed) for seed, name in enumerate(["one", "two"])}
    net.add_task("three", layers.Dense(3))
    jolt(net.open_model)
    for name in ["two", "one", "two"]:
        assert np.array_equal(logits(held[name], x), logits(net.task_model(name), x))


def test_compiled_predictions_of_views_do_not_interfere():
    net = packed(conv_trunk(), one=0.5, two=0.5)
    one, two = net.task_model("one"), net.task_model("two")
    x, _ = data(one)
    first = one.predict(x, verbose=0), two.predict(x, verbose=0)
    jolt(net.add_task("three", layers.Dense(3)))
    again = one.predict(x, verbose=0), two.predict(x, verbose=0)
    assert same(list(first), list(again))


def test_looking_never_mutates(trunk, tmp_path):
    net = packed(trunk, one=0.5, two=0.5)
    model = net.add_task("three", layers.Dense(3))
    x, y = data(trunk)
    jolt(model)
    net.prune(0.5)
    before = state(net)
    flags = [variable.trainable for variable in model.weights]
    for name in net.tasks:
        view = compiled(net.task_model(name))
        logits(view, x)
        view(x, training=True)
        view.predict(x, verbose=0)
        view.evaluate(x, y, verbose=0)
        view.summary(print_fn=lambda line, **kwargs: None)
        view.get_config()
        view.save(tmp_path / f"{name}.keras")
        view.trainable = True
        view.trainable = False
        plain = net.unpack(name)
        jolt(plain)
        net.classes(name)
    net.task_model("three").predict(x, verbose=0)
    str(net.capacity())
    net.capacity().to_dict()
    net.state.claimed_share()
    net.save(tmp_path / "pack.keras")
    packnet_tf.load(tmp_path / "pack.keras")
    assert same(state(net), before)
    assert [variable.trainable for variable in model.weights] == flags
    assert net.tasks == ("one", "two")


def test_the_model_of_the_open_task_is_the_one_that_trains():
    net = packed(mlp_trunk(), one=0.5)
    model = net.add_task("two", layers.Dense(3))
    assert net.task_model("two") is model
    assert net.open_model is model
    net.prune(0.5)
    net.commit()
    assert net.task_model("two") is not model
    assert net.open_model is None


@pytest.mark.parametrize("old", ["held", "view", "discarded"])
@pytest.mark.parametrize("flag", [False, True])
def test_trainable_of_an_old_model_does_not_stop_the_open_task(old, flag):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    model = pack_task(net, "one")
    if old == "view":
        model = net.task_model("one")
    elif old == "discarded":
        model = net.add_task("two", layers.Dense(3))
        net.discard()
    two = compiled(net.add_task("two", layers.Dense(3)), keras.optimizers.SGD(0.5))
    names = [variable.path for variable in two.trainable_variables]
    model.trainable = flag
    for layer in packed_layers(model):
        layer.trainable = flag
    assert [variable.path for variable in two.trainable_variables] == names
    before = kernels(net)
    fit(two, *data(trunk), epochs=1)
    after = kernels(net)
    assert all(not np.array_equal(before[path], after[path]) for path in before)


def test_a_committed_model_has_nothing_to_train_and_refuses_to():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    held = pack_task(net, "one")
    for model in (held, net.task_model("one")):
        assert model.trainable_variables == []
        with pytest.raises(RuntimeError) as error:
            fit(compiled(model), *data(trunk))
        assert str(error.value) == (
            "Cannot train the model of task 'one': the task is committed, and a committed task "
            "never changes. Restore or load weights before net.commit() (a PackNetCallback "
            "commits when fit ends); to train on, add a task with net.add_task."
        )


def test_a_discarded_model_refuses_to_train():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    model = compiled(net.add_task("one", layers.Dense(3)))
    net.discard()
    with pytest.raises(RuntimeError, match="the task was discarded"):
        fit(model, *data(trunk))


def test_an_unpacked_task_is_plain_trainable_and_exactly_the_view(trunk):
    net = packed(trunk, one=0.5, two=0.5)
    x, _ = data(trunk)
    kinds = [type(layer) for layer in trunk._flatten_layers(include_self=False)]
    for name in net.tasks:
        view, plain = net.task_model(name), net.unpack(name)
        layers_inside = list(plain._flatten_layers())
        assert not any(isinstance(layer, Packed) for layer in layers_inside)
        assert all(kind in map(type, layers_inside) for kind in kinds)
        assert np.array_equal(logits(plain, x), logits(view, x))
        assert plain.output_shape == view.output_shape
        assert not any("packed" in w.path or "owner" in w.path for w in plain.weights)


def test_an_unpacked_task_predicts_exactly_as_its_view_and_can_be_trained():
    net = packed(conv_trunk(), one=0.5)
    view, plain = net.task_model("one"), net.unpack("one")
    x, y = data(plain)
    assert np.array_equal(plain.predict(x, verbose=0), view.predict(x, verbose=0))
    before, packed_before = values(plain.trainable_variables), state(net)
    assert len(before) == 3 + 2 + 2 + 2  # kernels, biases, gain and shift, head
    compiled(plain, keras.optimizers.SGD(0.5)).train_on_batch(x, y)
    after = values(plain.trainable_variables)
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert same(state(net), packed_before)


def test_an_unpacked_task_holds_zeros_for_weights_it_does_not_see():
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    plain = net.unpack("one")
    for path, weight in net.state.weights.items():
        owner, value = values([weight.owner, weight.packed])
        kernel = values([plain.get_layer("mlp").get_layer(path).kernel])[0]
        assert np.array_equal(kernel, np.where(owner == 1, value, 0))


def test_an_unpacked_task_is_saved_and_loaded_as_any_keras_model(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    plain = net.unpack("one")
    x, _ = data(plain)
    plain.save(tmp_path / "plain.keras")
    assert b"packnet_tf" not in (tmp_path / "plain.keras").read_bytes()
    loaded = keras.saving.load_model(tmp_path / "plain.keras")
    assert np.array_equal(logits(loaded, x), logits(plain, x))


@pytest.mark.parametrize("kind", TRUNKS)
def test_the_callers_trunk_is_left_untouched(kind):
    trunk = TRUNKS[kind]()
    before = values(trunk.variables)
    config, names = trunk.get_config(), [variable.path for variable in trunk.variables]
    kinds = [type(layer) for layer in trunk._flatten_layers()]
    flags = [variable.trainable for variable in trunk.variables]
    x, y = data(trunk)
    answers = logits(trunk, x)
    net = packed(trunk, one=0.5, two=0.5)
    fit(compiled(net.add_task("three", layers.Dense(3))), x, y, epochs=1)
    assert same(values(trunk.variables), before)
    assert trunk.get_config() == config
    assert [variable.path for variable in trunk.variables] == names
    assert [type(layer) for layer in trunk._flatten_layers()] == kinds
    assert [variable.trainable for variable in trunk.variables] == flags
    assert np.array_equal(logits(trunk, x), answers)


def test_training_the_callers_trunk_does_not_reach_the_pack():
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    before = state(net)
    jolt(trunk)
    assert same(state(net), before)
