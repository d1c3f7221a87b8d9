"""A pack under a strategy: its models are too, wherever they are made."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.pack_helpers import SPARSE, data, mlp_trunk


def test_only_the_pack_is_made_in_the_scope_of_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        net = packnet_tf.PackNet(mlp_trunk())
    answers, (x, y) = None, data(mlp_trunk())
    for name in ("one", "two"):
        model = net.add_task(name, layers.Dense(3))
        assert model.distribute_strategy is strategy
        with strategy.scope():  # as Keras wants it
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(optimizer, SPARSE)
        model.fit(x, y, epochs=2, verbose=0, callbacks=[packnet_tf.PackNetCallback(0.5, 1)])
        answers = net.task_model("one").predict(x, verbose=0) if name == "one" else answers
    assert net.tasks == ("one", "two")
    view = net.task_model("one")
    assert view.distribute_strategy is strategy
    assert np.array_equal(view.predict(x, verbose=0), answers)
