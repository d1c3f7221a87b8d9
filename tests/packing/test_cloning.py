"""Every kind of trunk is packed with its values kept, each layer once."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    compiled,
    data,
    fit,
    functional,
    jolt,
    logits,
    mlp_trunk,
    nested_trunk,
    owners,
    pack_task,
    packed,
    same,
    values,
)


def test_packing_keeps_pretrained_values(trunk):
    """The first task starts as the trunk with a head on it, to the bit."""
    jolt(trunk)
    head = layers.Dense(3, name="logits")
    head.build(trunk.output_shape)
    x, _ = data(trunk)
    model = packnet_tf.PackNet(trunk).add_task("one", head)
    assert np.array_equal(logits(model, x), logits(keras.Sequential([trunk, head]), x))


def test_a_trunk_with_adapted_normalization_is_packed():
    adapted = layers.Normalization(name="adapted")
    adapted.adapt(np.arange(24, dtype="float32").reshape(2, 12))
    trunk = functional(adapted, layers.Dense(8))
    x, _ = data(trunk)
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", layers.Identity())
    assert np.array_equal(logits(model, x), logits(trunk, x))
    net.commit()
    assert np.array_equal(logits(net.task_model("one"), x), logits(trunk, x))
    assert np.array_equal(logits(net.unpack("one"), x), logits(trunk, x))


@pytest.mark.parametrize("place", ["trunk", "head"])
def test_adapted_boundaries_are_kept(place):
    adapted = layers.Discretization(num_bins=4, name="adapted")
    adapted.adapt(np.linspace(-1, 1, 24, dtype="float32").reshape(2, 12))
    trunk, head = functional(layers.Dense(8)), layers.Identity()
    if place == "trunk":
        trunk = functional(adapted, layers.Rescaling(0.25), layers.Dense(8))
    else:
        head = keras.Sequential([keras.Input((8,)), adapted])
    x, _ = data(trunk)
    expected = logits(keras.Sequential([trunk, head]), x)
    assert len(np.unique(expected)) > 2
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", head)
    assert np.array_equal(logits(model, x), expected)
    net.commit()
    assert np.array_equal(logits(net.task_model("one"), x), expected)
    assert np.array_equal(logits(net.unpack("one"), x), expected)


@keras.saving.register_keras_serializable("tests")
class Cached(layers.Layer):
    """Computes with a copy of its weight, as Normalization does."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", trainable=False)
        self.finalize_state()

    def finalize_state(self):
        self.cached = np.array(self.factor)

    def call(self, x):
        return x * self.cached


def test_copies_of_weights_that_a_layer_computes_with_are_kept():
    layer = Cached(name="cached")
    trunk = functional(layer, layers.Dense(8))
    layer.factor.assign(3.0)
    layer.finalize_state()
    x, _ = data(trunk)
    model = packnet_tf.PackNet(trunk).add_task("one", layers.Identity())
    assert np.array_equal(logits(model, x), layers.Identity()(trunk.layers[-1](3 * x)))


def test_a_trunk_with_a_python_lambda_is_refused_before_it_is_trained():
    """Such a pack could be saved but never loaded: loading executes nothing from a file."""
    trunk = functional(layers.Lambda(lambda x: 2 * x, name="twice"), layers.Dense(8))
    with pytest.raises(ValueError, match=r"(?i)lambda"):
        packnet_tf.PackNet(trunk)


def test_a_nested_model_and_a_layer_called_twice_have_one_owner_map_each():
    net = packed(nested_trunk(), one=0.5)
    assert sorted(net.state.weights) == ["block/inner", "stem", "twice"]
    assert {path: owner.shape for path, owner in owners(net).items()} == {
        "block/inner": (8, 8), "stem": (12, 8), "twice": (8, 8),
    }  # fmt: skip
    assert {path: entry["total"] for path, entry in net.capacity().items()} == {
        "block/inner": 64, "stem": 96, "twice": 64,
    }  # fmt: skip


def test_a_model_called_twice_has_one_owner_map():
    block = functional(layers.Dense(12, activation="relu", name="inner"), name="block")
    inputs = keras.Input((12,))
    trunk = keras.Model(inputs, block(block(inputs)))
    net = packed(trunk, one=0.5)
    assert list(net.state.weights) == ["block/inner"]
    x, _ = data(trunk)
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))


@pytest.mark.parametrize("nested", [keras.Sequential, None], ids=["in_sequential", "functional"])
def test_sequential_models_nest(nested):
    inner = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, activation="relu", name="inner")], name="block"
    )
    end = layers.Dense(4, name="end")
    if nested is None:
        trunk = functional(inner, end)
    else:
        trunk = nested([keras.Input((12,)), inner, end], name="outer")
    x, _ = data(trunk)
    net = packed(trunk, one=0.5, two=0.5)
    assert sorted(net.state.weights) == ["block/inner", "end"]
    for name in net.tasks:
        assert np.array_equal(logits(net.task_model(name), x), logits(net.unpack(name), x))


def test_a_sequential_model_built_by_calling_it_is_packed():
    trunk = keras.Sequential([layers.Dense(8, name="first")], name="called")
    trunk(np.zeros((2, 12), "float32"))
    net = packed(trunk, one=0.5)
    assert net.task_model("one").input_shape[1:] == (12,)


def test_a_trunk_with_several_inputs_is_packed():
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((3,), name="right")}
    x = layers.concatenate([layers.Dense(5, name=f"d_{k}")(v) for k, v in inputs.items()])
    trunk = keras.Model(inputs, x, name="two_inputs")
    net = packnet_tf.PackNet(trunk)
    model = compiled(net.add_task("one", layers.Dense(3)))
    rng = np.random.default_rng(0)
    x = {k: rng.normal(size=(16, *v.shape[1:])).astype("float32") for k, v in inputs.items()}
    fit(model, x, np.arange(16) % 3, packnet_tf.PackNetCallback(0.5, 1))
    assert net.tasks == ("one",)
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_a_trunk_with_several_outputs_is_packed(structure):
    inputs = keras.Input((12,), name="features")
    outputs = [layers.Dense(size, activation="relu", name=f"d{size}")(inputs) for size in (4, 6)]
    if structure == "dict":
        trunk = keras.Model(inputs, {"four": outputs[0], "six": outputs[1]})
        ends = {"four": keras.Input((4,), name="four"), "six": keras.Input((6,), name="six")}
        joined = layers.concatenate([ends["four"], ends["six"]])
    else:
        trunk = keras.Model(inputs, outputs)
        ends = [keras.Input((4,)), keras.Input((6,))]
        joined = layers.concatenate(ends)
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", keras.Model(ends, layers.Dense(3)(joined)))
    jolt(model)
    net.prune(0.5)
    net.commit()
    x = np.ones((2, 12), "float32")
    assert model.output_shape == (None, 3)
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))


def test_a_head_may_have_several_outputs():
    net = packnet_tf.PackNet(mlp_trunk())
    ends = keras.Input((8,))
    head = keras.Model(ends, [layers.Dense(2)(ends), layers.Dense(3)(ends)])
    model = net.add_task("one", head)
    assert model.output_shape == [(None, 2), (None, 3)]
    net.commit()
    x, _ = data(mlp_trunk())
    for first, second in zip(net.task_model("one")(x), net.unpack("one")(x), strict=True):
        assert np.array_equal(first, second)


def test_a_layer_that_its_owner_froze_stays_as_it_is_for_all_tasks():
    trunk = functional(layers.Dense(8, name="fixed"), layers.Dense(4, name="packed"))
    trunk.get_layer("fixed").trainable = False
    before = values(trunk.get_layer("fixed").weights)
    net = packnet_tf.PackNet(trunk)
    assert list(net.state.weights) == ["packed"]
    for name in ("one", "two"):
        model = pack_task(net, name)
        assert same(values(model.trunk.get_layer("fixed").weights), before)
        assert type(net.task_model(name).trunk.get_layer("fixed")) is layers.Dense


@keras.saving.register_keras_serializable("tests")
class Counting(layers.Layer):
    """Counts its calls: twice for a step that computes activations again for the gradients."""

    calls = 0

    def call(self, x):
        Counting.calls += 1
        return x


@pytest.mark.parametrize(("mode", "calls"), [(None, 1), ("full", 2)])
def test_a_trunk_that_computes_activations_again_does_so_as_a_view(mode, calls):
    import tensorflow as tf

    with keras.RematScope(mode=mode):
        trunk = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(3)])
    model = packed(trunk, one=0.5).task_model("one")
    x = tf.Variable(np.ones((2, 4), "float32"))
    Counting.calls = 0
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model.trunk(x))
    gradient = tape.gradient(total, x)
    assert Counting.calls == calls
    kernel = model.trunk.layers[-1].kernel
    assert np.array_equal(gradient, np.broadcast_to(np.sum(kernel, 1), (2, 4)))


@keras.saving.register_keras_serializable("tests")
class Talkative(layers.Layer):
    """Its configuration says more than its __init__ takes."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, name="dense")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "units_doubled": 2 * self.units}


def test_derived_values_in_a_configuration_do_no_harm(tmp_path):
    block = functional(Talkative(6, name="inner"), shape=(8,), name="block")
    trunk = functional(Talkative(8, name="outer"), block)
    net = packed(trunk, one=0.5, two=0.5)
    assert sorted(net.state.weights) == ["block/inner/dense", "outer/dense"]
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    x, _ = data(trunk)
    for name in net.tasks:
        assert np.array_equal(logits(loaded.task_model(name), x), logits(net.unpack(name), x))


@keras.saving.register_keras_serializable("tests")
class Doubling(layers.Wrapper):
    """A wrapper of one's own: its from_config takes the layer out of the configuration."""

    def call(self, x):
        return 2.0 * self.layer(x)


def test_a_wrapper_of_ones_own_is_packed(tmp_path):
    trunk = functional(Doubling(layers.Dense(4, name="inner"), name="double"))
    net = packed(trunk, one=0.5)
    assert list(net.state.weights) == ["double/inner"]
    net.save(tmp_path / "pack.keras")
    x, _ = data(trunk)
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert np.array_equal(logits(loaded.task_model("one"), x), logits(net.unpack("one"), x))


class Forgetful(Talkative):
    def get_config(self):
        return layers.Layer.get_config(self)


def test_a_layer_that_cannot_be_made_again_names_the_remedy():
    with pytest.raises(TypeError) as error:
        packnet_tf.PackNet(functional(Forgetful(4, name="lost")))
    assert str(error.value).startswith(
        "Layer 'lost' (Forgetful) cannot be made from its get_config(), so it cannot be copied for "
        "another task. Its get_config() must return the arguments of its __init__. If it only "
        "prepares or augments inputs, leave it out of the trunk and apply it to the data, "
        "dataset.map(...): "
    )


def test_a_layer_of_keras_that_cannot_be_made_again_names_the_remedy_too():
    photo = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3)(layers.RandomShear(0.1, 0.1, name="shear")(photo))
    with pytest.raises(TypeError, match="'shear' \\(RandomShear\\) cannot be made") as error:
        packnet_tf.PackNet(keras.Model(photo, layers.Flatten()(x)))
    assert "apply it to the data, dataset.map(...)" in str(error.value)


class Growing(layers.Layer):
    """Holds a layer more than its configuration says."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(4, name="part")]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_a_layer_that_is_made_again_differently_is_refused():
    layer = Growing(name="growing")
    layer.parts.append(layers.Dense(4, name="more"))
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(functional(layer))
    assert str(error.value) == (
        "Layer 'growing' (Growing) cannot be copied: recreated from its get_config(), it has "
        "other layers. Its get_config() must return everything that its __init__ and build() need "
        "to create the same layers."
    )


@keras.saving.register_keras_serializable("tests")
class Scaled(keras.Sequential):
    """Runs code of its own around its graph."""

    def call(self, inputs, training=None, mask=None, **kwargs):
        return 2.0 * super().call(inputs, training=training, mask=mask, **kwargs)


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_with_a_call_of_its_own_is_refused(nested):
    model = Scaled([keras.Input((12,)), layers.Dense(4)], name="scaled")
    trunk = functional(model, layers.Dense(3)) if nested else model
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(trunk)
    assert str(error.value) == (
        "Cannot pack model 'scaled': its class Scaled has a call() of its own, which a copy of its "
        "graph would not run. Put what it does into the graph, or into a layer."
    )


@pytest.mark.parametrize("nested", [False, True])
def test_a_head_with_a_call_of_its_own_is_refused(nested):
    model = Scaled([keras.Input((8,)), layers.Dense(3)], name="scaled")
    head = keras.Sequential([keras.Input((8,)), model]) if nested else model
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(mlp_trunk()).add_task("one", head)
    assert str(error.value) == (
        "Cannot add task 'one' with model 'scaled' as its head: its class Scaled has a call() of "
        "its own, which a copy of its graph would not run. Put what it does into the graph, or "
        "into a layer."
    )


def test_a_layer_held_by_two_others_is_refused_not_untied():
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(5)], name="encoder")
    many, one = keras.Input((3, 4)), keras.Input((4,))
    frames = layers.Flatten()(layers.TimeDistributed(encoder)(many))
    trunk = keras.Model([many, one], layers.concatenate([frames, encoder(one)]))
    with pytest.raises(ValueError, match="two layers contain it, and their copies would not"):
        packnet_tf.PackNet(trunk)


def test_a_layer_of_two_models_comes_with_a_warning_before_it_is_trained():
    twice = layers.Dense(12, name="twice")
    block = functional(twice, name="block")
    inputs = keras.Input((12,))
    trunk = keras.Model(inputs, twice(block(inputs)), name="outer")
    with pytest.warns(UserWarning, match="Layer 'twice' is part of two models") as warned:
        packnet_tf.PackNet(trunk)
    assert "Keras saves such a trunk but cannot load it" in str(warned[0].message)


def test_all_outputs_of_a_sequential_trunk_are_kept():
    trunk = keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, return_state=True)])
    x = np.ones((2, 5, 4), "float32")
    net = packnet_tf.PackNet(trunk)
    ends = [keras.Input(tensor.shape[1:]) for tensor in net.state.trunk.outputs]
    head = keras.Model(ends, layers.concatenate([layers.Flatten()(end) for end in ends]))
    expected = np.concatenate([np.array(output) for output in trunk(x)], axis=1)
    assert np.array_equal(logits(net.add_task("one", head), x), expected)


def test_a_trunk_may_have_the_name_of_its_input():
    inputs = keras.Input((12,), name="same")
    net = packed(keras.Model(inputs, layers.Dense(4)(inputs), name="same"), one=0.5)
    x, _ = data(net.task_model("one"))
    assert np.array_equal(logits(net.task_model("one"), x), logits(net.unpack("one"), x))
