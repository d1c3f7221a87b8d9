"""A tiny trunk for every layer that is packed, and for every shape of network.

`NETWORKS` maps a name to a function that builds the trunk and to the paths of what must be packed
in it; whatever else the trunk has follows the policy.
"""

import copy

import keras
import numpy as np
from keras import layers, ops

SEQUENCE = (6, 4)
IMAGE = (6, 6, 2)


def row(*stack, shape, dtype="float32"):
    """Layers in a row."""
    inputs = keras.Input(shape, dtype=dtype, name="features")
    x = inputs
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, name="trunk")


def one(layer, shape, *names):
    """A trunk of one layer: its builder, and the paths of its packed weights."""
    path = layer.name
    config = keras.saving.serialize_keras_object(layer)

    def build():
        # Wrappers take their layer out of the configuration they are made from.
        return row(keras.saving.deserialize_keras_object(copy.deepcopy(config)), shape=shape)

    return build, [f"{path}/{name}" for name in names] if names else [path]


def attention_trunk(make):
    inputs = keras.Input(SEQUENCE, name="sequence")
    return keras.Model(inputs, make(name="attention")(inputs, inputs), name="trunk")


PROJECTIONS = ["attention/query", "attention/key", "attention/value", "attention/attention_output"]


@keras.saving.register_keras_serializable("tests")
class Positions(layers.Layer):
    """Learned positions, a weight of a layer that is not packed."""

    def build(self, shape):
        self.positions = self.add_weight(name="positions", shape=shape[1:], initializer="normal")

    def call(self, x):
        return x + self.positions


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A layer of one's own that is made of others, one of them built when it is first called."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.wide = layers.Dense(2 * width, "gelu", name="wide", dtype=self.dtype_policy)
        self.narrow = layers.Dense(width, name="narrow", dtype=self.dtype_policy)
        self.scale = self.add_weight(name="scale", shape=(width,), initializer="ones")

    def call(self, x):
        return x + self.scale * self.narrow(self.wide(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def encoder(x, name, width=8, mask=None):
    """A pre-norm block of a transformer."""
    y = layers.LayerNormalization(name=f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(2, 4, name=f"{name}_attention")(y, y, attention_mask=mask)
    x = layers.Add(name=f"{name}_add1")([x, y])
    y = layers.LayerNormalization(name=f"{name}_norm2")(x)
    y = layers.Dense(2 * width, activation="gelu", name=f"{name}_up")(y)
    y = layers.Dense(width, name=f"{name}_down")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


def encoder_paths(name):
    inner = [f"{name}_{path}" for path in PROJECTIONS]
    return [*inner, f"{name}_up", f"{name}_down"]


def vit_trunk():
    """Patches, positions, two encoder blocks."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 4, strides=4, name="patches")(inputs)
    x = Positions(name="positions")(layers.Reshape((4, 8), name="tokens")(x))
    x = encoder(encoder(x, "first"), "second")
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D(name="pool")(x), name="vit")


def text_trunk():
    """Token, segment and position embeddings, padding masked; two integer inputs in a dict."""
    inputs = {
        "token_ids": keras.Input((6,), dtype="int32", name="token_ids"),
        "segment_ids": keras.Input((6,), dtype="int32", name="segment_ids"),
    }
    tokens = layers.Embedding(12, 8, mask_zero=True, name="tokens")(inputs["token_ids"])
    segments = layers.Embedding(12, 8, name="segments")(inputs["segment_ids"])
    x = Positions(name="positions")(layers.Add(name="sum")([tokens, segments]))
    mask = ops.expand_dims(ops.not_equal(inputs["token_ids"], 0), 1)
    x = encoder(x, "first", mask=mask)
    return keras.Model(inputs, layers.GlobalAveragePooling1D(name="pool")(x), name="text")


def outputs_trunk():
    """Three outputs in a dict, of different rank."""
    inputs = keras.Input((6, 6, 1), name="image")
    fine = layers.Conv2D(3, 3, activation="relu", name="fine")(inputs)
    coarse = layers.Conv2D(4, 3, strides=2, activation="relu", name="coarse")(fine)
    whole = layers.Dense(5, name="whole")(layers.Flatten(name="flat")(coarse))
    return keras.Model(inputs, {"fine": fine, "coarse": coarse, "whole": whole}, name="pyramid")


def nested_trunk():
    """A backbone applied to every frame, then recurrent in both directions, then attention."""
    backbone = row(
        layers.Conv2D(3, 3, activation="relu", name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.GlobalAveragePooling2D(name="pool"),
        shape=(5, 5, 1),
    )
    inputs = keras.Input((4, 5, 5, 1), name="clip")
    x = layers.TimeDistributed(backbone, name="frames")(inputs)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True, name="gru"), name="both")(x)
    x = layers.MultiHeadAttention(1, 4, name="attention")(x, x)
    return keras.Model(inputs, x, name="clips")


def shared_trunk():
    """One LSTM called on two inputs."""
    inputs = [keras.Input(SEQUENCE, name="left"), keras.Input(SEQUENCE, name="right")]
    lstm = layers.LSTM(4, name="lstm")
    return keras.Model(inputs, layers.concatenate([lstm(x) for x in inputs]), name="siamese")


KERNELS = ("kernel", "recurrent_kernel")
SEPARABLE = ("depthwise_kernel", "pointwise_kernel")

NETWORKS = {
    "Dense": one(layers.Dense(5, activation="relu", name="dense"), (7,)),
    "EinsumDense": one(layers.EinsumDense("abc,cd->abd", (6, 5), name="einsum"), SEQUENCE),
    "Conv1D causal dilated": one(
        layers.Conv1D(4, 2, padding="causal", dilation_rate=2, name="conv"), SEQUENCE
    ),
    "Conv2D groups": one(layers.Conv2D(4, 3, groups=2, name="conv"), IMAGE),
    "Conv2D strides": one(layers.Conv2D(4, 3, strides=2, padding="same", name="conv"), IMAGE),
    # Not 4 filters: where they equal the width, Keras adds the bias along the wrong axis.
    "Conv2D channels_first": one(
        layers.Conv2D(5, 3, data_format="channels_first", name="conv"), (2, 6, 6)
    ),
    "Conv3D": one(layers.Conv3D(3, 2, name="conv"), (4, 4, 4, 1)),
    "Conv1DTranspose": one(layers.Conv1DTranspose(3, 3, strides=2, name="conv"), SEQUENCE),
    "Conv2DTranspose": one(
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="conv"), IMAGE
    ),
    "Conv3DTranspose": one(layers.Conv3DTranspose(2, 2, name="conv"), (3, 3, 3, 1)),
    "DepthwiseConv1D": one(layers.DepthwiseConv1D(3, depth_multiplier=2, name="conv"), SEQUENCE),
    "DepthwiseConv2D": one(layers.DepthwiseConv2D(3, name="conv"), IMAGE),
    "SeparableConv1D": one(layers.SeparableConv1D(5, 3, name="conv"), SEQUENCE, *SEPARABLE),
    "SeparableConv2D": one(layers.SeparableConv2D(5, 3, name="conv"), IMAGE, *SEPARABLE),
    "MultiHeadAttention": (
        lambda: attention_trunk(lambda name: layers.MultiHeadAttention(2, 3, name=name)),
        PROJECTIONS,
    ),
    "GroupQueryAttention": (
        lambda: attention_trunk(lambda name: layers.GroupQueryAttention(3, 4, 2, name=name)),
        PROJECTIONS,
    ),
    "LSTM": one(layers.LSTM(5, name="rnn"), SEQUENCE, *(f"lstm_cell/{k}" for k in KERNELS)),
    "GRU sequences": one(
        layers.GRU(5, return_sequences=True, name="rnn"),
        SEQUENCE,
        *(f"gru_cell/{k}" for k in KERNELS),
    ),
    "SimpleRNN": one(
        layers.SimpleRNN(5, name="rnn"), SEQUENCE, *(f"simple_rnn_cell/{k}" for k in KERNELS)
    ),
    "RNN of cells": one(
        layers.RNN([layers.GRUCell(3, name="a"), layers.LSTMCell(4, name="b")], name="rnn"),
        SEQUENCE,
        *(f"stacked_rnn_cells/{cell}/{k}" for cell in "ab" for k in KERNELS),
    ),
    "ConvLSTM2D": one(
        layers.ConvLSTM2D(2, 2, name="rnn"),
        (3, 4, 4, 1),
        *(f"conv_lstm_cell/{k}" for k in KERNELS),
    ),
    "Bidirectional": one(
        layers.Bidirectional(layers.LSTM(3, name="rnn"), name="both"),
        SEQUENCE,
        *(f"{way}_rnn/lstm_cell/{k}" for way in ("forward", "backward") for k in KERNELS),
    ),
    "TimeDistributed": one(
        layers.TimeDistributed(layers.Conv2D(3, 2, name="conv"), name="frames"),
        (3, 4, 4, 1),
        "conv",
    ),
    "layer of one's own": (
        lambda: row(Block(4, name="block"), shape=SEQUENCE),
        ["block/wide", "block/narrow"],
    ),
    "ViT": (vit_trunk, ["patches", *encoder_paths("first"), *encoder_paths("second")]),
    "text encoder": (text_trunk, encoder_paths("first")),
    "several outputs": (outputs_trunk, ["fine", "coarse", "whole"]),
    "layer shared by calls": (shared_trunk, [f"lstm/lstm_cell/{k}" for k in KERNELS]),
    "wrappers around a model": (
        nested_trunk,
        [
            "frames/trunk/conv",
            *(f"both/{way}_gru/gru_cell/{k}" for way in ("forward", "backward") for k in KERNELS),
            *PROJECTIONS,
        ],
    ),
}


def samples(trunk, size=12, seed=0):
    """Random inputs of a trunk, in its structure; whole numbers are tokens, 0 is padding."""
    rng = np.random.default_rng(seed)

    def draw(tensor):
        shape = (size, *(length or 7 for length in tensor.shape[1:]))
        if "int" in tensor.dtype:
            tokens = rng.integers(0, 12, shape)
            tokens[:, 0] = 1  # no sample is all padding
            return tokens.astype(tensor.dtype)
        return rng.normal(size=shape).astype(tensor.dtype)

    return keras.tree.map_structure(draw, trunk.input)


def head_for(trunk, classes=3):
    """A head that takes whatever the trunk puts out."""
    ends = keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], name=f"end_{tensor.shape[-1]}"), trunk.output
    )
    flat = [layers.Flatten()(end) for end in keras.tree.flatten(ends)]
    x = layers.concatenate(flat) if len(flat) > 1 else flat[0]
    return keras.Model(ends, layers.Dense(classes, name="logits")(x), name="head")
