"""Promise 1: no door of Keras lets other values over those of committed tasks."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    compiled,
    data,
    fit,
    jolt,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    packed_layers,
    same,
    values,
)


@pytest.fixture
def birds():
    """A pack with an open task, its compiled model, and data."""
    trunk = mlp_trunk()
    net = packed(trunk, one=0.5)
    return net, compiled(net.add_task("birds", layers.Dense(3))), *data(trunk)


def test_setting_weights_of_a_committed_task_is_refused(birds, tmp_path):
    net, model, x, _ = birds
    kept, state = model.get_weights(), model.get_state_tree("numpy_array")
    model.save_weights(tmp_path / "kept.weights.h5")
    net.prune(0.5)
    net.commit()
    for held in (model, net.task_model("birds")):
        before, answers = values(held.variables), logits(held, x)
        for action, source, words in (
            (held.set_weights, kept, "set the weights of"),
            (held.load_weights, tmp_path / "kept.weights.h5", "load weights into"),
            (held.set_state_tree, state, "set the state of"),
        ):
            with pytest.raises(RuntimeError) as error:
                action(source)
            assert str(error.value) == (
                f"Cannot {words} the model of task 'birds': the task is committed, and a "
                "committed task never changes. Restore or load weights before net.commit() (a "
                "PackNetCallback commits when fit ends); to train on, add a task with "
                "net.add_task."
            )
        assert same(values(held.variables), before)
        assert np.array_equal(logits(held, x), answers)


def test_weights_of_another_pack_state_are_refused(tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, _ = data(trunk)
    one = net.add_task("one", layers.Dense(3))
    one.save_weights(tmp_path / "early.weights.h5")
    net.prune(0.5)
    net.commit()
    answers = logits(one, x)
    two = net.add_task("two", layers.Dense(3))
    before = owners(net), [values([weight.packed]) for weight in net.state.weights.values()]
    with pytest.raises(ValueError, match="the weights of committed tasks differ from this pack's"):
        two.load_weights(tmp_path / "early.weights.h5")
    assert same(list(owners(net).values()), list(before[0].values()))
    for weight, packed_values in zip(net.state.weights.values(), before[1], strict=True):
        assert same(values([weight.packed]), packed_values)
    assert np.array_equal(logits(net.task_model("one"), x), answers)


@pytest.mark.parametrize("door", ["model", "trunk"])
@pytest.mark.parametrize("way", ["legacy file", "state tree"])
def test_older_values_of_committed_tasks_are_refused_whatever_door_they_come_by(
    way, door, tmp_path
):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, _ = data(trunk)
    pack_task(net, "one")
    two = net.add_task("two", layers.Dense(3))
    compiled(two)
    source = two if door == "model" else two.trunk
    source.save(tmp_path / "two.h5")
    state = {"non_trainable_variables": {v.path: np.array(v) for v in source.variables}}
    jolt(two)
    net.prune(0.5)
    net.commit()
    answers = logits(net.task_model("two"), x)
    three = net.add_task("three", layers.Dense(3))
    target = three if door == "model" else three.trunk
    before = values(three.variables)
    action, given = (
        (target.load_weights, tmp_path / "two.h5")
        if way == "legacy file"
        else (target.set_state_tree, state)
    )
    with pytest.raises(ValueError, match="the weights of committed tasks differ from this pack's"):
        action(given)
    assert same(values(three.variables), before)
    assert np.array_equal(logits(net.task_model("two"), x), answers)


def test_weights_of_one_layer_are_set_within_the_same_rules(birds):
    net, model, x, y = birds
    layer = packed_layers(model)[0]
    early = layer.get_weights()
    fit(model, x, y, epochs=1)
    assert not same(layer.get_weights(), early)
    layer.set_weights(early)  # the open task's own
    assert same(layer.get_weights(), early)
    net.commit()
    before = values(model.variables)
    with pytest.raises(RuntimeError) as error:
        layer.set_weights(early)
    assert str(error.value) == (
        f"Cannot set the weights of layer '{layer.name}': its task is committed or discarded, or "
        "it only shows the pack. Take the model of the open task, net.open_model."
    )
    assert same(values(model.variables), before)


def _holders_trunk():
    inputs = keras.Input((4, 8))
    inner = keras.Sequential([keras.Input((4, 8)), layers.Dense(8)], name="inner")
    attended = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inner(inputs))
    ends = layers.Bidirectional(layers.GRU(4), name="wrapper")(attended)
    return keras.Model(inputs, layers.Dense(8, name="layer")(ends), name="trunk")


@pytest.mark.parametrize("place", ["layer", "inner", "attention", "wrapper"])
def test_weights_of_a_part_that_would_change_a_committed_task_are_refused(place):
    net = packed(_holders_trunk(), one=0.5)
    held = net.task_model("one")
    model = net.add_task("two", layers.Dense(3))
    before = values([*model.variables, *held.variables])
    for owner, error, words in (
        (model, ValueError, "the weights of committed tasks differ from this pack's"),
        (held, RuntimeError, "its task is committed or discarded"),
    ):
        part = owner.trunk.get_layer(place)
        kept = part.get_weights()
        changed = [array if array.dtype == np.uint8 else 2 * array for array in kept]
        with pytest.raises(error, match=words):
            part.set_weights(changed)
        assert same(values([*model.variables, *held.variables]), before)
    part = model.trunk.get_layer(place)
    part.set_weights(part.get_weights())
    with pytest.raises(ValueError, match="weight list of length 1"):
        part.set_weights(part.get_weights()[:1])
    with pytest.raises(ValueError, match="shape"):
        part.set_weights([array[:1] for array in part.get_weights()])


def test_a_committed_trunk_gives_nothing_to_the_open_task():
    """Its layers share what trains with those of the open task's view."""
    net = packnet_tf.PackNet(mlp_trunk())
    old = net.add_task("one", layers.Dense(3))
    net.prune(0.5)
    net.commit()
    new = net.add_task("two", layers.Dense(3))
    kept = old.trunk.get_weights()
    jolt(new)
    before = values(new.variables)
    with pytest.raises(RuntimeError, match="its task is committed or discarded"):
        old.trunk.set_weights(kept)
    assert same(values(new.variables), before)


def test_a_state_of_the_open_task_can_be_set_again(birds):
    _, model, x, _ = birds
    state, answers = model.get_state_tree("numpy_array"), logits(model, x)
    jolt(model)
    assert not np.array_equal(logits(model, x), answers)
    model.set_state_tree(state)
    assert np.array_equal(logits(model, x), answers)


def test_averages_that_round_committed_weights_are_refused_by_what_was_done(birds):
    net, model, x, _ = birds
    before = logits(net.task_model("one"), x)
    thirds = [values.copy() for values in model.get_weights()]
    for array, variable in zip(thirds, model.weights, strict=True):
        if "packed" in variable.path:
            array += np.spacing(array)
    with pytest.raises(
        ValueError, match=r"^Cannot set these weights: .* average model\.trainable_"
    ):
        model.set_weights(thirds)
    assert same(before, logits(net.task_model("one"), x))
