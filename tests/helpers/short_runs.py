"""Runs of the trainer that take a second: little data, few epochs, nothing on the screen."""

from keras import layers

from helpers.pack_helpers import data
from packnet_tf import PackTrainer, Task


def tasks(trunk, *names, size=48, held_out=True):
    """Tasks of three classes on the same images, each with its classes in another order.

    Args:
        trunk: what the images are for.
        names: of the tasks.
        size: how many images there are.
        held_out: whether the images are also the tasks' validation and test data.
    """
    x, y = data(trunk, size=size)
    return [
        Task(name, layers.Dense(3), *[(x, (y + i) % 3)] * (3 if held_out else 1))
        for i, name in enumerate(names)
    ]


def quick(net, **kwargs):
    """A trainer of two epochs and one of retraining."""
    settings = {"epochs": 2, "retrain_epochs": 1, "learning_rate": 0.05, "verbose": False}
    return PackTrainer(net, **{**settings, **kwargs})
