"""The head of an image task on a trunk that is not trained yet."""

from collections.abc import Callable

import keras

from packnet_tf.training.heads import collect, scaled_head


def calibrated_head(features_of: Callable, images, classes: int, factor: float = 1.0):
    """Returns a random linear head on features that are scaled to a common size.

    See `packnet_tf.training.heads.scaled_head`.

    Args:
        features_of: function from images to features, as at the start of the task.
        images: dataset of batches (images, labels); the first 8 batches are used.
        classes: number of outputs.
        factor: the factor on the learning rate, see `rates.factors`. The initial weights are
            divided by it: at a higher rate, random weights push the trunk harder before they
            have learnt anything.
    """
    features = collect(features_of, images.take(8)).features
    begin = keras.initializers.VarianceScaling(factor**-2, "fan_avg", "uniform")  # Glorot's at 1
    return scaled_head(features, classes, kernel_initializer=begin)
