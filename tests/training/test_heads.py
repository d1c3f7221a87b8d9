"""Promise 6: heads are chosen by argument, belong to one task, and train with it alone."""

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
    pack_task,
    packed,
    packed_layers,
    same,
    values,
)


def small_model():
    inputs = keras.Input((8,))
    x = layers.BatchNormalization()(layers.Dense(5, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(3)(x), name="small_model")


HEADS = {
    "layer": lambda: layers.Dense(3, name="logits"),
    "sequential": lambda: keras.Sequential([layers.Dropout(0.5), layers.Dense(3)]),
    "built_sequential": lambda: keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, activation="relu"), layers.Dense(3)]
    ),
    "functional": small_model,
    "named_like_the_trunk": lambda: layers.Dense(3, name="mlp"),
    "named_like_the_input": lambda: layers.Dense(3, name="features"),
    "named_like_a_layer_of_the_trunk": lambda: layers.Dense(3, name="first"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_any_layer_or_small_model_is_a_head(kind, tmp_path):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    model = compiled(net.add_task("one", HEADS[kind]()))
    fit(model, x, y, packnet_tf.PackNetCallback(0.5, 0), epochs=1)
    assert model.output_shape == (None, 3)
    answers = logits(model, x)
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    assert np.array_equal(logits(net.unpack("one"), x), answers)
    net.save(tmp_path / "pack.keras")
    # Loaded, looked at and saved again, as often as one likes.
    for _ in range(3):
        loaded = packnet_tf.load(tmp_path / "pack.keras")
        assert np.array_equal(logits(loaded.task_model("one"), x), answers)
        loaded.save(tmp_path / "pack.keras")


def test_tasks_have_heads_of_their_own_width():
    net = packnet_tf.PackNet(mlp_trunk())
    for name, classes in {"one": 2, "two": 5, "three": 3}.items():
        pack_task(net, name, classes=classes)
    x, _ = data(mlp_trunk())
    assert [net.task_model(name)(x).shape for name in net.tasks] == [(24, 2), (24, 5), (24, 3)]


@pytest.mark.parametrize("built", [False, True])
def test_one_head_given_to_two_tasks_becomes_two_heads(built):
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    head = layers.Dense(3, name="logits")
    if built:
        head.build((None, 8))
    start = values(head.weights)
    one = net.add_task("one", head)
    jolt(one, 1)
    net.prune(0.5)
    net.commit()
    first = values(one.head.weights)
    two = net.add_task("two", head)
    assert two.head is not one.head
    assert one.head is not head
    assert not same(values(two.head.weights), first)
    jolt(two, 2)
    net.prune(0.5)
    net.commit()
    assert same(values(net.task_model("one").head.weights), first)
    assert same(values(one.head.weights), first)
    assert head.built == built
    assert same(values(head.weights), start)


def test_a_pretrained_head_keeps_its_values():
    trunk = mlp_trunk()
    pretrained = small_model()
    jolt(pretrained)
    before = values(pretrained.weights)
    x, _ = data(trunk)
    expected = logits(keras.Sequential([trunk, pretrained]), x)
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", pretrained)
    assert same(values(model.head.weights), before)
    assert np.array_equal(logits(model, x), expected)
    jolt(model)
    assert same(values(pretrained.weights), before)


def test_an_inactive_head_is_never_trained():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    one = pack_task(net, "one")
    view = net.task_model("one")
    before = values(one.head.weights)
    two = compiled(
        net.add_task("two", layers.Dense(3, name="logits")),
        keras.optimizers.AdamW(0.05, weight_decay=0.5, use_ema=True),
    )
    trainable = {id(variable) for variable in two.trainable_variables}
    others = [*one.head.weights, *view.head.weights]
    assert not trainable & {id(variable) for variable in others}
    assert {id(variable) for variable in two.head.weights} <= trainable
    start = values(two.head.weights)
    fit(two, *data(trunk), packnet_tf.PackNetCallback(0.5, 1))
    assert not same(values(two.head.weights), start)
    for head in (one.head, view.head, net.task_model("one").head):
        assert same(values(head.weights), before)


def test_a_head_is_not_packed():
    net = packed(mlp_trunk(), one=0.5)
    model = net.task_model("one")
    assert len(packed_layers(model)) == 2
    assert type(model.head) is layers.Dense
    assert not any("logits" in path for path in net.capacity())


def test_moving_statistics_of_a_head_are_kept():
    trunk = mlp_trunk()
    net = packnet_tf.PackNet(trunk)
    model = compiled(net.add_task("one", small_model()))
    x, y = data(trunk)
    fit(model, x, y, packnet_tf.PackNetCallback(0.5, 0), epochs=1)
    answers = logits(model, x)
    compiled(net.add_task("two", small_model())).train_on_batch(x, y)
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    assert np.array_equal(logits(model, x), answers)


@pytest.mark.parametrize("end", ["commit", "discard"])
@pytest.mark.parametrize("kind", ["layer", "part"])
def test_the_head_of_a_closed_model_trains_again_from_its_values(end, kind):
    net = packnet_tf.PackNet(mlp_trunk())
    given = layers.Dense(3)
    if kind == "part":
        first = layers.Dense(4)
        given = keras.Sequential([keras.Input((8,)), first, layers.Dense(3)])
        first.trainable = False  # its owner's choice, which stays
    old = net.add_task("one", given)
    jolt(old)
    net.prune(0.5)
    getattr(net, end)()
    start = values(old.head.weights)
    new = compiled(net.add_task("two", old.head))
    assert same(values(new.head.weights), start)
    x, y = data(new)
    fit(new, x, y, epochs=1)
    moved = [not np.array_equal(a, b) for a, b in zip(values(new.head.weights), start, strict=True)]
    assert moved == ([False, False, True, True] if kind == "part" else [True, True])
    assert same(values(old.head.weights), start)
    assert old.trainable_variables == []


def test_parts_of_closed_heads_train_again_too():
    net = packnet_tf.PackNet(mlp_trunk())
    inner = layers.Dense(8)
    old = net.add_task("one", keras.Sequential([keras.Input((8,)), inner, layers.Dense(3)]))
    net.prune(0.5)
    net.commit()
    part, closed = old.head.layers[0], values(old.head.weights)
    whole = keras.Sequential([keras.Input((8,)), old.head, layers.Dense(2)])
    for head in (part, whole):
        model = net.add_task("two", head)
        assert all(variable.trainable for variable in model.head.weights)
        assert model.head.trainable
        jolt(model)
        net.discard()
        assert same(values(old.head.weights), closed)
        assert not any(variable.trainable for variable in old.head.weights)


def test_what_a_user_makes_of_a_closed_head_is_kept():
    net = packed(mlp_trunk(), one=0.5)
    head = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(3)])
    net.add_task("two", head)
    net.prune(0.5)
    net.commit()
    held = net.task_model("two").head
    held.trainable = True
    held.layers[0].trainable = False
    model = net.add_task("three", held)
    assert [v.trainable for v in model.head.weights] == [False, False, True, True]
    assert [v.trainable for v in held.weights] == [False, False, True, True]
