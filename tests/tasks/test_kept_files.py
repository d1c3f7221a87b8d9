"""Layers that keep more than weights: tables, statistics, files of their own."""

import copy
import json
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import data, logits, mlp_trunk


def test_a_head_with_adapted_normalization_is_the_same_after_a_round_trip(tmp_path):
    trunk = mlp_trunk()
    x, _ = data(trunk)
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (64, 8)).astype("float32"))
    head = keras.Sequential([keras.Input((8,)), norm, layers.Dense(3)])
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", head)
    expected = logits(model, x)
    net.save(tmp_path / "open.keras")
    opened = packnet_tf.load(tmp_path / "open.keras").open_model
    assert np.array_equal(logits(opened, x), expected)
    net.commit()
    net.save(tmp_path / "done.keras")
    assert np.array_equal(
        logits(packnet_tf.load(tmp_path / "done.keras").task_model("one"), x), expected
    )


def test_a_lookup_table_in_the_trunk_comes_along(tmp_path):
    lookup = layers.IntegerLookup(output_mode="one_hot")
    lookup.adapt(np.array([3, 5, 8]))
    inputs = keras.Input((1,), dtype="int64", name="number")
    trunk = keras.Model(inputs, layers.Dense(4)(lookup(inputs)))
    x = np.array([[3], [8], [9]])
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("one", layers.Identity())
    assert np.array_equal(logits(model, x), keras.ops.convert_to_numpy(trunk(x)))
    net.commit()
    net.save(tmp_path / "pack.keras")
    again = packnet_tf.load(tmp_path / "pack.keras").task_model("one")
    assert np.array_equal(logits(again, x), logits(net.task_model("one"), x))


@keras.saving.register_keras_serializable("tests")
class Table(layers.Layer):
    """Multiplies by values that it keeps in a file of its own, as Keras's guide to saving shows."""

    values = (1.0,) * 4

    def call(self, x):
        return x * keras.ops.convert_to_tensor(self.values, x.dtype)

    def save_assets(self, path):
        (pathlib.Path(path) / "table.json").write_text(json.dumps(self.values))

    def load_assets(self, path):
        self.values = json.loads((pathlib.Path(path) / "table.json").read_text())


def test_files_that_layers_of_the_trunk_keep_come_along(tmp_path):
    inputs, table = keras.Input((4,)), Table(name="table")
    table.values = (2.0, 3.0, 4.0, 5.0)
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(4)(table(inputs))))
    model = net.add_task("one", layers.Dense(3))
    net.commit()
    x = np.random.default_rng(0).random((5, 4)).astype("float32")
    net.save(tmp_path / "pack.keras")
    for other in (packnet_tf.load(tmp_path / "pack.keras"), copy.deepcopy(net)):
        assert np.array_equal(logits(other.task_model("one"), x), logits(model, x))


def own_table():
    table = Table(name="kept")
    table.values = (2.0, 3.0, 4.0, 5.0)
    return keras.Sequential([keras.Input((4,)), table])


def adapted_lookup(given=()):
    given = given or None
    lookup = layers.StringLookup(vocabulary=given, invert=True, num_oov_indices=0, name="kept")
    if not given:
        lookup.adapt(np.array(["cat", "dog", "fox", "owl"]))
    logits = keras.Input((4,))
    return keras.Model(logits, lookup(keras.ops.argmax(logits, -1)))


class Unregistered(layers.Layer):
    """A layer of one's own around one that keeps a file."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lookup = layers.IntegerLookup(vocabulary=[1, 2, 3])

    def call(self, x):
        return keras.ops.cast(self.lookup(keras.ops.cast(x, "int64")), "float32")


def test_a_head_with_a_lookup_within_a_layer_of_ones_own_is_taken():
    net = packnet_tf.PackNet(keras.Sequential([keras.Input((3,)), layers.Dense(4)]))
    with pytest.warns(UserWarning, match="Unregistered, which is not registered with Keras"):
        net.add_task("one", Unregistered())
    assert net.open_model.task_name == "one"


@pytest.mark.parametrize("head", [own_table, adapted_lookup])
def test_a_head_that_keeps_files_is_refused(head):
    net = packnet_tf.PackNet(keras.Sequential([keras.Input((3,)), layers.Dense(4)]))
    with pytest.raises(
        ValueError, match=r"layer 'kept' \(\w+\) of its head keeps what its get_con"
    ):
        net.add_task("one", head())
    assert net.open_model is None
    net.add_task("one", adapted_lookup(["cat", "dog", "fox", "owl"]))  # its configuration has them
