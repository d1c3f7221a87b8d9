"""All promises, for every layer that is packed and every shape of network."""

import keras
import pytest
from keras import layers

from helpers.cases import POLICIES
from helpers.contract import check_contract
from helpers.networks import NETWORKS, SEQUENCE, Block, row, text_trunk

ANY_BACKEND = ["Conv2D strides", "SeparableConv1D", "LSTM", "layer of one's own", "text encoder"]
# Of their families, the quick tests have Conv2DTranspose, SeparableConv1D, DepthwiseConv2D, LSTM
# and the text encoder, which attends.
SLOW = [
    "MultiHeadAttention",
    "Conv1DTranspose",
    "Conv3DTranspose",
    "DepthwiseConv1D",
    "SeparableConv2D",
    "GroupQueryAttention",
    "GRU sequences",
    "SimpleRNN",
    "RNN of cells",
    "ConvLSTM2D",
    "Bidirectional",
    "ViT",
    "layer shared by calls",
    "Conv2D groups",
    "several outputs",
    "wrappers around a model",
]


def marks(name):
    return [
        *([pytest.mark.any_backend] if name in ANY_BACKEND else []),
        *([pytest.mark.slow] if name in SLOW else []),
    ]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETWORKS])
def test_every_network_packs(name, tmp_path):
    build, paths = NETWORKS[name]
    check_contract(build(), paths, tmp_path)


@pytest.mark.slow
def test_embeddings_are_packed_where_asked_for(tmp_path):
    paths = [*NETWORKS["text encoder"][1], "tokens", "segments"]
    check_contract(text_trunk(), paths, tmp_path, embeddings="packed")


def within_layers():
    """Biases, norms and a weight of one's own, within layers and outside."""
    return row(
        layers.BatchNormalization(name="norm"),
        Block(4, name="block"),
        layers.TimeDistributed(layers.Dense(3, name="dense"), name="steps"),
        shape=SEQUENCE,
    )


@pytest.mark.parametrize(("biases", "norms", "restart"), POLICIES)
def test_every_policy_holds_for_layers_within_layers(biases, norms, restart, tmp_path):
    paths = ["block/wide", "block/narrow", "steps/dense"]
    policy = {"biases": biases, "norms": norms, "restart": restart}
    check_contract(within_layers(), paths, tmp_path, **policy)


@pytest.mark.slow
@pytest.mark.any_backend
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_holds_for_layers_within_layers(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    trunk = within_layers()
    keras.config.set_dtype_policy("float32")
    check_contract(trunk, None, tmp_path)
