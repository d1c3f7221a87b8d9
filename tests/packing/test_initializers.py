"""Copies and loaded packs draw no first values, and know how their layers would draw them."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import functional, pack_task
from packnet_tf.packing.initializers import SkippedInitializer, fresh_values

SEED = {"seed": 3}


def dense_trunk():
    he = keras.initializers.HeNormal(**SEED)
    return functional(layers.Dense(8, kernel_initializer=he), layers.Dense(4))


def attention_trunk():
    he = keras.initializers.HeNormal(**SEED)
    inputs = keras.Input((5, 6))
    x = layers.MultiHeadAttention(2, 3, kernel_initializer=he)(inputs, inputs)
    x = layers.Bidirectional(layers.GRU(3, kernel_initializer=he))(x)
    return keras.Model(inputs, x)


def nested_trunk():
    inner = dense_trunk()
    inputs = keras.Input((12,))
    return keras.Model(inputs, layers.Dense(5)(inner(inputs)))


TRUNKS = [dense_trunk, attention_trunk, nested_trunk]


@pytest.fixture
def drawn(monkeypatch):
    """The shapes that are drawn from here on."""
    shapes = []
    for cls in (keras.initializers.HeNormal, keras.initializers.GlorotUniform):
        draw = cls.__call__

        def note(self, shape, dtype=None, draw=draw, **kwargs):
            shapes.append(tuple(shape))
            return draw(self, shape, dtype, **kwargs)

        monkeypatch.setattr(cls, "__call__", note)
    return shapes


@pytest.mark.parametrize("make", TRUNKS)
def test_packing_looking_and_loading_draw_no_kernel(make, drawn, tmp_path):
    trunk = make()
    assert drawn, "the test would see nothing"
    drawn.clear()
    net = packnet_tf.PackNet(trunk)
    assert drawn == []
    pack_task(net, "one")
    net.save(tmp_path / "pack.keras")
    drawn.clear()
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    assert drawn == []
    head = loaded.task_model("one").head
    loaded.unpack("one")
    assert set(drawn) <= {tuple(head.kernel.shape)}


@pytest.mark.parametrize("make", TRUNKS)
def test_a_loaded_pack_has_the_initializers_of_its_trunk(make, tmp_path):
    trunk = make()
    net = packnet_tf.PackNet(trunk, restart="fresh")
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    for source, *copies in zip(
        trunk._flatten_layers(),
        net.state.trunk._flatten_layers(),
        loaded.state.trunk._flatten_layers(),
        strict=True,
    ):
        for attribute, value in vars(source).items():
            if isinstance(value, keras.initializers.Initializer):
                for copy in copies:
                    found = getattr(copy, attribute)
                    assert not isinstance(found, SkippedInitializer)
                    assert type(found) is type(value)
                    assert found.get_config() == value.get_config()


def test_a_loaded_pack_draws_fresh_values_as_before(tmp_path):
    net = packnet_tf.PackNet(dense_trunk(), restart="fresh")
    net.save(tmp_path / "pack.keras")
    loaded = packnet_tf.load(tmp_path / "pack.keras")
    first, second = (next(fresh_values(pack.state.trunk.layers)) for pack in (net, loaded))
    assert np.array_equal(first, second)
    assert np.array_equal(first, keras.initializers.HeNormal(**SEED)((12, 8)))
