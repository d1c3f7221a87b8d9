"""What can be a trunk: every refusal says what to write instead (promise 9)."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import functional, mlp_trunk, packed, packed_layers


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_refused():
    model = Subclassed()
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(model)
    assert str(error.value) == (
        "Cannot pack trunk 'own': it is a subclassed model (Subclassed), whose graph only its own "
        "code knows. Build it as a Functional or Sequential model; a subclassed layer inside one "
        "is fine."
    )


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(keras.Sequential([layers.Dense(2)], name="early"))
    assert str(error.value) == (
        "Cannot pack trunk 'early': it is not built yet. Give it an input shape, "
        "keras.Sequential([keras.Input((96, 96, 3)), ...]), or call it once on data."
    )


def nothing_packable():
    return functional(layers.BatchNormalization())


def frozen_trunk():
    trunk = mlp_trunk()
    trunk.trainable = False
    return trunk


@pytest.mark.parametrize("make", [nothing_packable, frozen_trunk])
def test_a_trunk_with_nothing_to_pack_is_refused(make):
    trunk = make()
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(trunk)
    assert str(error.value) == (
        f"Cannot pack trunk '{trunk.name}': it has no trainable layer that can be packed (Dense "
        "or a convolution, say). Register a layer of your own with "
        "packnet_tf.register_packed; if the trunk is frozen, set trunk.trainable = True."
    )


def test_a_packed_trunk_is_refused():
    net = packed(mlp_trunk(), one=0.5)
    model = net.task_model("one")
    for trunk in (net, model, model.trunk, functional(model.trunk)):
        with pytest.raises(ValueError) as error:
            packnet_tf.PackNet(trunk)
        assert str(error.value) == (
            "Cannot pack this trunk: it is packed already. Add tasks to the PackNet it belongs "
            "to, or pack the plain model that net.unpack(task) returns."
        )
    packnet_tf.PackNet(net.unpack("one"))


@pytest.mark.parametrize(
    "trunk", ["trunk.keras", None, layers.Dense(2)], ids=["path", "none", "one"]
)
def test_what_is_no_model_is_refused(trunk):
    with pytest.raises(ValueError, match="expected a Keras model"):
        packnet_tf.PackNet(trunk)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"biases": "own"}, "biases='own' is not a policy; write biases='shared' or "
                            "biases='per_task'."),
        ({"norms": True}, "norms=True is not a policy; write norms='shared' or norms='per_task'."),
        ({"restart": 0}, "restart=0 is not a policy; write restart='trunk' or restart='zero' or "
                         "restart='fresh'."),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_refused(setting, text):
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(mlp_trunk(), **setting)
    assert str(error.value) == text


def test_a_lora_layer_is_refused():
    trunk = functional(layers.Dense(8, lora_rank=2, name="adapted"))
    with pytest.raises(ValueError) as error:
        packnet_tf.PackNet(trunk)
    assert str(error.value) == (
        "Cannot pack layer 'adapted': it is LoRA-enabled, so its kernel is not one plain float "
        "variable. Build the PackNet from the plain float model, and quantize or adapt the "
        "model that net.unpack(task) returns."
    )


def test_a_lora_enabled_layer_within_a_layer_is_refused():
    inputs = keras.Input((6, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    trunk = keras.Model(inputs, attention(inputs, inputs))
    attention.query_dense.enable_lora(2)
    with pytest.raises(ValueError, match="Cannot pack layer 'query': it is LoRA-enabled"):
        packnet_tf.PackNet(trunk)


def test_a_quantized_layer_is_refused():
    trunk = functional(layers.Dense(8, name="small"))
    trunk.get_layer("small").quantize("int8")
    with pytest.raises(ValueError, match="Cannot pack layer 'small': it is quantized"):
        packnet_tf.PackNet(trunk)


@pytest.mark.parametrize(
    ("action", "text"),
    [(lambda layer: layer.enable_lora(2), "LoRA"), (lambda layer: layer.quantize("int8"), "Quant")],
)
def test_packed_layers_refuse_to_become_something_else(action, text):
    net = packed(mlp_trunk(), one=0.5)
    for layer in packed_layers(net.task_model("one")):
        with pytest.raises(ValueError, match=f"Layer '{layer.name}' is packed: .*{text}"):
            action(layer)


def test_a_trunk_of_an_embedding_alone_is_told_how_to_pack_it():
    tokens = keras.Input((9,), dtype="int32")
    features = layers.GlobalAveragePooling1D()(layers.Embedding(50, 8, name="words")(tokens))
    trunk = keras.Model(tokens, features)
    with pytest.raises(ValueError, match="embedding 'words', write embeddings=\"packed\""):
        packnet_tf.PackNet(trunk)
    net = packnet_tf.PackNet(trunk, embeddings="packed")
    assert list(net.capacity()) == ["words"]
