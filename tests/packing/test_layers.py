"""The layers that are packed, and how to register one of your own."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    data,
    functional,
    jolt,
    logits,
    mlp_trunk,
    pack_task,
    packed,
    packed_layers,
)


class Doubled(layers.Dense):
    """A subclass of Dense that reads its kernel in its own way."""

    def call(self, x):
        return super().call(2.0 * x)


def test_a_subclass_of_a_packed_layer_names_the_remedy():
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(functional(Doubled(4, name="twice")))
    assert str(error.value) == (
        "Layer 'twice' is a Doubled, a subclass of Dense that is not registered for packing. If it "
        "reads its kernel as Dense does, call packnet_tf.register_packed(Doubled, "
        "variables=['kernel']) first."
    )


class Tripled(layers.Dense):
    def call(self, x):
        return super().call(3.0 * x)


@keras.saving.register_keras_serializable("tests")
class Bilinear(layers.Layer):
    """A layer of one's own with two weights to pack and one of another kind."""

    def build(self, shape):
        self.left = self.add_weight(name="left", shape=(shape[-1], 4), initializer="glorot_uniform")
        self.right = self.add_weight(shape=(shape[-1], 4), name="right", initializer="normal")
        self.gain = self.add_weight(name="gain", shape=(4,), initializer="ones")

    def call(self, x):
        return self.gain * keras.ops.matmul(x, self.left) * keras.ops.matmul(x, self.right)


def test_registered_layers_are_packed(tmp_path):
    packnet_tf.register_packed(Tripled)
    packnet_tf.register_packed(Bilinear, variables=["left", "right"])
    trunk = functional(Tripled(4, name="triple"), Bilinear(name="bi"))
    x, _ = data(trunk)
    start = logits(trunk, x)
    net = packnet_tf.PackNet(trunk)
    assert list(net.state.weights) == ["triple", "bi/left", "bi/right"]
    assert np.array_equal(logits(net.add_task("one", layers.Identity()), x), start)
    jolt(net.open_model)
    net.prune(0.5)
    net.commit()
    answers = logits(net.task_model("one"), x)
    pack_task(net, "two")
    assert np.array_equal(logits(net.task_model("one"), x), answers)
    plain = net.unpack("one")
    assert np.array_equal(logits(plain, x), answers)
    assert any(type(layer) is Bilinear for layer in plain._flatten_layers())


@pytest.mark.parametrize("variables", [[], "kernel", ()])
def test_registering_without_names_is_refused(variables):
    with pytest.raises(ValueError) as error:
        packnet_tf.register_packed(Doubled, variables=variables)
    assert str(error.value) == (
        "register_packed needs the names of the weights to pack, a list; got "
        f'{variables!r}. Write variables=["kernel"].'
    )


def test_registering_a_packed_class_is_refused():
    packed_class = type(packed_layers(packed(mlp_trunk(), one=0).task_model("one"))[0])
    with pytest.raises(ValueError) as error:
        packnet_tf.register_packed(packed_class)
    assert str(error.value) == (
        "PackedDense is a packed class already; register the plain Keras class."
    )


@keras.saving.register_keras_serializable("tests")
class Affine(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(name="matrix", shape=(shape[-1], 4), initializer="normal")

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


class PackedAffine(packnet_tf.Packed, Affine):
    """Packing a layer of one's own without `register_packed`."""

    packed_names = ("matrix",)


def test_a_subclass_of_packed_makes_its_layer_packable(tmp_path):
    trunk = functional(Affine(name="affine"))
    net = packed(trunk, one=0.5, two=0.5)
    assert list(net.state.weights) == ["affine"]
    assert isinstance(net.task_model("one").trunk.get_layer("affine"), PackedAffine)
    x, _ = data(trunk)
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    for name in net.tasks:
        assert np.array_equal(logits(loaded.task_model(name), x), logits(net.unpack(name), x))


def test_a_name_that_is_no_variable_is_refused():
    class Hidden(layers.Layer):
        def build(self, shape):
            self._weight = self.add_weight(name="weight", shape=(shape[-1], 4))

        @property
        def weight(self):
            return 2.0 * self._weight

        def call(self, x):
            return keras.ops.matmul(x, self.weight)

    packnet_tf.register_packed(Hidden, variables=["weight"])
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(functional(Hidden(name="hidden")))
    assert str(error.value).startswith("Cannot pack layer 'hidden': its 'weight' is not a variable")
    assert str(error.value).endswith(
        "Register the names of variables that the layer has made with add_weight."
    )


def test_a_kernel_that_another_layer_changes_is_shared_with_a_warning():
    wrapped = layers.SpectralNormalization(layers.Dense(4, name="inner"), name="spectral")
    trunk = functional(wrapped, layers.Dense(8, name="fc"))
    with pytest.warns(UserWarning, match="is not packed but shared") as warned:
        net = packnet_tf.PackNet(trunk)
    assert str(warned[0].message) == (
        "Layer 'inner' is not packed but shared after the first task: layer 'spectral' "
        "(SpectralNormalization) changes its kernel too."
    )
    assert list(net.state.weights) == ["fc"]


def test_a_layer_with_one_frozen_kernel_is_shared_with_a_warning():
    trunk = functional(layers.SeparableConv1D(4, 3, name="half"), layers.Dense(8), shape=(6, 2))
    trunk.get_layer("half").depthwise_kernel.trainable = False
    with pytest.warns(UserWarning, match="is not packed but shared") as warned:
        net = packnet_tf.PackNet(trunk)
    assert str(warned[0].message) == (
        "Layer 'half' is not packed but shared after the first task: one of its kernels is frozen."
    )
    model = net.add_task("one", layers.Dense(3))
    names = [variable.path for variable in model.trainable_variables]
    assert any(name.endswith("half/pointwise_kernel") for name in names)
    assert not any(name.endswith("depthwise_kernel") for name in names)


@keras.saving.register_keras_serializable("tests")
class Twins(layers.Layer):
    """Two layers of one name, and an attribute named as Keras names its lists of layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layers = [layers.Dense(4, name="twin"), layers.Dense(4, name="twin")]
        self.end = layers.Dense(4, name="end")

    def build(self, shape):
        for layer in self.layers:
            layer.build(shape)
        self.end.build((None, 4))

    def call(self, x):
        left, right = self.layers
        return self.end(left(x) * right(x))


def test_layers_of_one_name_within_a_layer_are_both_packed(tmp_path):
    trunk = functional(Twins(name="pair"))
    net = packed(trunk, one=0.5)
    assert list(net.state.weights) == ["pair/twin", "pair/twin_", "pair/end"]
    assert len(packed_layers(net.task_model("one"))) == 3
    net.save(tmp_path / "pack.keras")
    assert list(packnet_tf.load(tmp_path / "pack.keras").state.weights) == list(net.state.weights)


def test_a_frozen_layer_within_a_layer_stays_as_it_is():
    inputs = keras.Input((6, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    trunk = keras.Model(inputs, attention(inputs, inputs), name="trunk")
    attention.query_dense.trainable = False
    before = [np.array(weight) for weight in attention.query_dense.weights]
    net = packed(trunk, one=0.5, two=0.5)
    assert list(net.state.weights) == [
        f"attention/{name}" for name in ("key", "value", "attention_output")
    ]
    for name in net.tasks:
        query = net.task_model(name).trunk.get_layer("attention").query_dense
        assert all(map(np.array_equal, before, query.weights))


@pytest.mark.parametrize("name", ["packed_weights", "task_view", "plain"])
def test_an_attribute_that_packed_layers_need_is_refused(name):
    class Busy(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 4))
            setattr(self, name, True)

        def call(self, x):
            return keras.ops.matmul(x, self.kernel)

    packnet_tf.register_packed(Busy)
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(functional(Busy(name="busy")))
    assert str(error.value) == (
        f"Cannot pack layer 'busy': it has an attribute '{name}', which packed layers use for "
        f"themselves. Rename it in Busy, to '_{name}' for instance."
    )


def test_a_frozen_subclass_needs_no_registration():
    trunk = functional(Doubled(8, name="fixed"), layers.Dense(4, name="fc"))
    trunk.get_layer("fixed").trainable = False
    assert list(packnet_tf.PackNet(trunk).state.weights) == ["fc"]
