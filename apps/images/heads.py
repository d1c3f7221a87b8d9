"""The head that a task of images begins with, where the trunk has learnt nothing yet."""

from collections.abc import Callable

import keras

from packnet_tf.training.heads import collect, scaled_head


def calibrated_head(features_of: Callable, images, classes: int, factor: float = 1.0):
    """A random linear head on features of one size; see `packnet_tf.training.heads.scaled_head`.

    Args:
        features_of: from images to features, as the task begins with them.
        images: dataset of (images, labels), of which the first 8 batches are looked at.
        classes: number of outputs.
        factor: what the rate of the training is multiplied by, see `rates.factors`. The head
            begins with values that much smaller: random ones would push the trunk that much
            harder before they have learnt anything.
    """
    features, _ = collect(features_of, images.take(8))
    begin = keras.initializers.VarianceScaling(factor**-2, "fan_avg", "uniform")  # Glorot's at 1
    return scaled_head(features, classes, kernel_initializer=begin)
