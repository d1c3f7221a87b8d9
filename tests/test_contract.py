"""All promises, for every layer that is packed and every shape of network."""

import keras
import pytest

from contract import check_contract
from networks import NETWORKS, text_trunk


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_packs(name, tmp_path):
    build, paths = NETWORKS[name]
    check_contract(build(), paths, tmp_path)


def test_embeddings_are_packed_where_asked_for(tmp_path):
    paths = [*NETWORKS["text encoder"][1], "tokens", "segments"]
    check_contract(text_trunk(), paths, tmp_path, embeddings="packed")


@pytest.mark.parametrize("biases", ["shared", "per_task"])
@pytest.mark.parametrize("norms", ["shared", "per_task"])
def test_every_policy_holds_for_layers_within_layers(biases, norms, tmp_path):
    build, paths = NETWORKS["wrappers around a model"]
    check_contract(build(), paths, tmp_path, biases=biases, norms=norms, restart="zero")


def test_mixed_precision_holds_for_layers_within_layers(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    build, paths = NETWORKS["wrappers around a model"]
    trunk = build()
    keras.config.set_dtype_policy("float32")
    check_contract(trunk, paths, tmp_path)
