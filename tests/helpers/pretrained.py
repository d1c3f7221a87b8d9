"""A little pretrained trunk, and images to repair it on."""

import functools

import keras
import numpy as np
from keras import layers

from helpers.pack_helpers import compiled, conv_trunk, data, fit, values
from packnet_tf.packing.cloning import attach
from packnet_tf.packing.policy import own_weights

# JAX is nothing without XLA; TensorFlow spends seconds on compiling.
JIT_COMPILE = "auto" if keras.backend.backend() == "jax" else False


@functools.cache
def trained_values():
    """The weights of the trunk and of its head."""
    trunk = conv_trunk()
    model, head = attach(trunk, layers.Dense(3, name="logits"), "whole")
    x, y = data(trunk, size=200, seed=5)
    compiled(model, keras.optimizers.Adam(0.01), jit_compile=JIT_COMPILE)
    fit(model, x, y, epochs=5, batch_size=20)
    return values(trunk.weights), values(head.weights)


def pretrained():
    """A little convolutional network, trained; returns its trunk and its head."""
    trunk = conv_trunk()
    head = layers.Dense(3, name="logits")
    head.build(trunk.output_shape)
    for part, trained in zip((trunk, head), trained_values(), strict=True):
        part.set_weights(trained)
    return trunk, head


def images(trunk=None, size=96):
    """Images of another kind than those of `pretrained`."""
    rng = np.random.default_rng(3)
    shape = (6, 6, 1) if trunk is None else trunk.input_shape[1:]
    return rng.uniform(-1, 2, size=(size, *shape)).astype("float32")


def adopt(net, **kwargs):
    """Adopts the trunk of a pack as 'imagenet', repaired in 8 epochs unless told otherwise."""
    if "images" not in kwargs:
        kwargs["images"] = images(net.state.trunk)
    kwargs = {"epochs": 8, "learning_rate": 0.01, **kwargs}
    return net.adopt("imagenet", verbose=0, **kwargs)


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels), of uneven size."""

    def __len__(self):
        return 3

    def __getitem__(self, place):
        batch = images()[[slice(0, 50), slice(50, 95), slice(95, 96)][place]]
        return batch, np.full(len(batch), -1)


def committed(net):
    """All that a pack has for good."""
    weights = net.state.weights.values()
    variables = [v for weight in weights for v in (weight.packed, weight.owner, weight.claim)]
    return values([*variables, *(v for _, v in own_weights(net.state.trunk))])
