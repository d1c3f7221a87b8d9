"""Data that never end are refused wherever all of them are gone over."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.pack_helpers import functional, mlp_trunk, packed
from packnet_tf.backend.datasets import known_batches
from packnet_tf.export import export_all, export_onnx

X = np.random.default_rng(0).random((6, 12)).astype("float32")
ENDLESS = tf.data.Dataset.from_tensor_slices(X).batch(2).repeat()


class Batches(keras.utils.PyDataset):
    """Batches of the examples, round and round."""

    @property
    def num_batches(self):
        return None

    def __getitem__(self, place):
        return (X[:2],)


def test_how_many_batches_there_are():
    assert known_batches(ENDLESS) == np.inf
    assert known_batches(ENDLESS.take(5)) == 5
    assert known_batches(ENDLESS.take(5).filter(lambda x: True)) is None
    assert known_batches(Batches()) == np.inf
    assert known_batches(X) is None
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    spread = strategy.experimental_distribute_dataset(ENDLESS.take(5))
    assert known_batches(spread) == 5  # a property there


@pytest.mark.parametrize("data", [ENDLESS, Batches()], ids=["tf.data", "PyDataset"])
def test_adopting_and_measuring_statistics_do_not_go_on_for_ever(data):
    net = packnet_tf.PackNet(functional(layers.Dense(4), layers.BatchNormalization()))
    with pytest.raises(ValueError, match="images to adopt on never end"):
        net.adopt("base", 0.5, images=data, epochs=1, verbose=0)
    assert net.tasks == ()
    assert net.open_model is None
    model = net.add_task("one", layers.Dense(3))
    with pytest.raises(ValueError, match="data to measure statistics on never end"):
        packnet_tf.update_statistics(model, data)
    packnet_tf.update_statistics(model, data, steps=3)


def test_exporting_does_not_either(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    with pytest.raises(ValueError, match="inputs given never end"):
        export_onnx(net, "one", tmp_path / "m.onnx", samples=ENDLESS)
    labelled = tf.data.Dataset.zip(ENDLESS, tf.data.Dataset.from_tensors([0, 1]).repeat())
    with pytest.raises(ValueError, match="labels to evaluate on never end"):
        export_all(net, tmp_path / "onnx", evaluate={"one": labelled})
