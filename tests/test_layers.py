"""The layers that are packed, and how to register one of your own."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from pack_helpers import (
    data,
    functional,
    jolt,
    logits,
    mlp_trunk,
    pack_task,
    packed,
    packed_layers,
)


@pytest.mark.parametrize(
    ("layer", "shape", "names"),
    [
        (layers.Conv2D(4, 3, groups=2), (6, 6, 2), ["packed"]),
        (layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (8, 2), ["packed"]),
        (layers.EinsumDense("abc,cd->abd", output_shape=(3, 4)), (3, 2), ["packed"]),
        (layers.Conv2DTranspose(4, 3), (6, 6, 1), ["packed"]),
        (layers.DepthwiseConv2D(3), (6, 6, 2), ["packed"]),
        (
            layers.SeparableConv2D(4, 3),
            (6, 6, 2),
            ["packed/depthwise_kernel", "packed/pointwise_kernel"],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_every_listed_layer_is_packed(layer, shape, names):
    layer = type(layer).from_config({**layer.get_config(), "name": "packed"})
    trunk = functional(layer, layers.Flatten(), shape=shape)
    x, _ = data(trunk)
    start = logits(trunk, x)
    net = packnet_tf.PackNet(trunk)
    assert list(net._weights) == names
    model = net.add_task("one", layers.Identity())
    assert np.array_equal(logits(model, x), start)
    jolt(model)
    net.prune(0.5)
    net.commit()
    answers = logits(net.task_model("one"), x)
    assert np.array_equal(logits(net.unpack("one"), x), answers)
    pack_task(net, "two")
    assert np.array_equal(logits(net.task_model("one"), x), answers)


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
    assert list(net._weights) == ["triple", "bi/left", "bi/right"]
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
