"""Counters that layers keep count the steps of training, and not those that measure statistics."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import packnet_tf


@keras.saving.register_keras_serializable("tests")
class Annealed(layers.Layer):
    """Grows stronger with the steps of training."""

    def build(self, shape):
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False, name="step")

    def call(self, inputs, training=False):
        if training:
            self.step.assign_add(0.3)
        return inputs * ops.minimum(1.0, self.step / 10)


@pytest.mark.any_backend
def test_a_layers_float_counter_counts_the_steps_of_training_alone():
    net = packnet_tf.PackNet(keras.Sequential([keras.Input((5,)), layers.Dense(4), Annealed()]))
    model = net.add_task("one", layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    inputs = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    model.fit(inputs, np.arange(64) % 3, batch_size=8, epochs=2, verbose=0)
    net.prune(0.5)
    model.fit(inputs, np.arange(64) % 3, batch_size=8, epochs=1, verbose=0)
    net.commit()
    annealed = net.task_model("one").trunk.layers[-1]
    assert float(annealed.step) == pytest.approx(0.3 * 3 * 8, rel=1e-6)
