"""The stem: layers that train with the first task, and that all tasks then share."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.contract import check_contract
from helpers.pack_helpers import conv_trunk, jolt, mlp_trunk, nested_trunk, pack_task, same
from packnet_tf.packing.policy import own_weights, stem_layers


def skipping_trunk():
    """A branch that reads the middle of the stem, and two nested models of the same layer names."""
    inputs = keras.Input((12,), name="features")
    first = layers.Dense(8, name="first")(inputs)
    norm = layers.BatchNormalization(name="norm", momentum=0.5)(first)
    second = layers.Dense(8, activation="relu", name="second")(norm)
    third = layers.Dense(8, name="third")(layers.add([second, first], name="sum"))
    for name in ("left", "right"):
        given = keras.Input((8,))
        inner = keras.Model(given, layers.Dense(8, name="inner")(given), name=name)
        third = inner(third)
    return keras.Model(inputs, third, name="skipping")


def names(trunk, stem):
    return [layer.name for layer in stem_layers(trunk, stem) if layer.weights]


def at(net, task, layer):
    """A task's values at a layer of the trunk."""
    trunk = net.task_model(task).trunk
    x = np.random.default_rng(5).normal(size=(4, *trunk.input_shape[1:])).astype("float32")
    return keras.ops.convert_to_numpy(keras.Model(trunk.input, trunk.get_layer(layer).output)(x))


def test_a_stem_is_what_its_last_layer_depends_on():
    assert set(names(conv_trunk(), "relu1")) == {"conv1", "norm1"}
    assert set(names(mlp_trunk(), "first")) == {"first"}
    assert set(names(skipping_trunk(), "second")) == {"first", "norm", "second"}
    assert stem_layers(conv_trunk(), None) == []


def test_a_stem_may_end_within_a_nested_model():
    assert set(names(nested_trunk(), "inner")) == {"stem", "inner"}
    before = {"first", "norm", "second", "third"}
    assert set(names(skipping_trunk(), "left/inner")) == before | {"inner"}
    assert set(names(skipping_trunk(), "left")) == before | {"left", "inner"}
    right = stem_layers(skipping_trunk(), "right/inner")
    assert [layer.name for layer in right].count("inner") == 2


def test_a_stem_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="stem='conv9' is no layer of trunk 'conv'"):
        packnet_tf.PackNet(conv_trunk(), stem="conv9")
    with pytest.raises(ValueError, match=r"names 2 layers .* stem='left/inner' for instance"):
        packnet_tf.PackNet(skipping_trunk(), stem="inner")
    with pytest.raises(ValueError, match="all layers up to 'fc', is not packed; name an earlier"):
        packnet_tf.PackNet(conv_trunk(), stem="fc")
    with pytest.raises(ValueError, match="is the input of trunk 'skipping', so tasks would share"):
        packnet_tf.PackNet(skipping_trunk(), stem="features")
    plain = keras.Sequential([keras.Input((4,)), layers.ReLU(name="relu")])
    with pytest.raises(ValueError, match=r"stem='x' is no layer .* stem='relu' for instance"):
        packnet_tf.PackNet(plain, stem="x")


@pytest.mark.any_backend
def test_all_tasks_compute_the_stem_of_the_first(tmp_path):
    trunk = conv_trunk()
    start = keras.ops.convert_to_numpy(trunk.get_layer("conv1").kernel)
    net = packnet_tf.PackNet(trunk, stem="relu1")
    assert list(net.capacity()) == ["conv2", "fc"]
    pack_task(net, "one")
    pack_task(net, "two", seed=3)
    stem = at(net, "one", "relu1")
    assert np.array_equal(stem, at(net, "two", "relu1"))
    assert not np.array_equal(at(net, "one", "relu2"), at(net, "two", "relu2"))
    assert not np.array_equal(net.unpack("two").get_layer("conv").get_layer("conv1").kernel, start)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert loaded.policy.stem == "relu1"
    pack_task(loaded, "three", seed=6)
    assert np.array_equal(stem, at(loaded, "three", "relu1"))


def test_the_stem_trains_with_the_first_task_alone():
    net = packnet_tf.PackNet(skipping_trunk(), stem="second", biases="per_task")
    inside = {"first", "norm", "second"}

    def trained(model):
        ids = {id(variable) for variable in model.trainable_variables}
        return {layer.name for layer, v in own_weights(model.trunk) if id(v) in ids}

    model = net.add_task("one", layers.Dense(3))
    assert inside <= trained(model)
    jolt(model)
    net.prune(0.5)
    net.commit()
    model = net.add_task("two", layers.Dense(3))
    assert not inside & trained(model)
    assert {"third", "inner"} <= trained(model)  # biases of its own
    norm = model.trunk.get_layer("norm")
    before = [np.array(v) for v in norm.weights]
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((8, 12)) * 9, np.ones((8, 3)))
    assert same(before, [np.array(v) for v in norm.weights])  # its statistics too


def test_frozen_layers_of_a_stem_stay_as_they_are():
    trunk = conv_trunk()
    trunk.get_layer("conv1").trainable = False
    start = np.array(trunk.get_layer("conv1").kernel)
    net = packnet_tf.PackNet(trunk, stem="relu1")
    pack_task(net, "one")
    assert np.array_equal(net.unpack("one").get_layer("conv").get_layer("conv1").kernel, start)


def test_an_adopted_trunk_gives_the_stem():
    net = packnet_tf.PackNet(conv_trunk(), stem="relu1")
    net.adopt("base", 0.5, images=np.random.default_rng(0).normal(size=(16, 6, 6, 1)), verbose=0)
    pack_task(net, "one", reuse=["base"])
    assert np.array_equal(at(net, "base", "relu1"), at(net, "one", "relu1"))


@pytest.mark.slow
def test_every_promise_holds_beside_a_stem(tmp_path):
    check_contract(conv_trunk(), ["conv2", "fc"], tmp_path, stem="relu1")


def test_the_summary_counts_the_stem_as_shared(capsys):
    packnet_tf.PackNet(conv_trunk(), stem="relu1").summary()
    row = next(line for line in capsys.readouterr().out.splitlines() if "norm1" in line)
    assert row.split() == ["norm1", "BatchNormalization", "16"]
