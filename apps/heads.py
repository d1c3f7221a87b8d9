"""The head that a task of images gets."""

import math
from collections.abc import Callable

import keras
import numpy as np

FEATURE_NORM = 30.0  # mean squared norm that features are scaled to


def calibrated_head(trunk, images, classes: int, factor: float = 1.0) -> keras.Model:
    """A linear head on features scaled to a mean squared norm of `FEATURE_NORM`.

    Backbones differ a lot in the size of their features, and a linear layer on large ones is
    unstable at learning rates that move the trunk: its step is the rate times the squared norm.

    Args:
        trunk: the model that gives the features, as the task begins with it.
        images: dataset of (images, labels), of which the first 8 batches are looked at.
        classes: number of outputs.
        factor: what the rate of the training is multiplied by, see `rates.factors`. The head
            begins with values that much smaller: random ones would push the trunk that much
            harder before they have learnt anything.
    """
    features = [keras.ops.convert_to_numpy(trunk(batch)) for batch, _ in images.take(8)]
    norm = float(np.mean(np.sum(np.square(np.concatenate(features)), axis=-1)))
    scale = math.sqrt(FEATURE_NORM / norm) if norm > 0 else 1.0
    width = features[0].shape[-1]
    begin = keras.initializers.VarianceScaling(factor**-2, "fan_avg", "uniform")  # Glorot's at 1
    dense = keras.layers.Dense(classes, kernel_initializer=begin)
    return keras.Sequential(
        [keras.Input((width,)), keras.layers.Rescaling(scale), dense], name="head"
    )


def head_of_next_task(net, name: str, make: Callable[[Callable], keras.layers.Layer]):
    """A head made for the trunk as the next task of a pack begins with it.

    Args:
        net: the pack; it is left as it was.
        name: of the next task.
        make: gets what answers as that view of the trunk does, and returns the head.
    """
    probe = net.add_task(name, keras.layers.Dense(1))
    try:
        return make(as_in_training(probe.trunk) if net.tasks else probe.trunk)
    finally:
        net.discard()


def as_in_training(trunk: keras.Model) -> Callable:
    """From images to a trunk's features as training sees them; looking changes nothing.

    Training normalises by each batch. The statistics that a later task starts with are the trunk's,
    not those of its weights, and by them its features come out several times too large.
    """

    def features(images):
        with keras.StatelessScope():  # moving statistics stay as they are
            return trunk(images, training=True)

    return features
