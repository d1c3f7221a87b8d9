"""The head that a task of images begins with."""

from collections.abc import Callable

import keras
import numpy as np

from packnet_tf.apps.trunks import is_trained
from packnet_tf.heads import collect, fitted_head, linear_accuracy, next_view, scaled_head


def begin_with(net, name: str, sets: dict, classes: int, factor: float):
    """A head for the next task of a pack, and what to hold the task against.

    A linear head that has converged, where the trunk has learnt something already; else a random
    one.

    Args:
        net: the pack; it is left as it was.
        name: of the next task, for the screen.
        sets: datasets of (images, labels), "train" and "validation", shuffled.
        classes: number of outputs.
        factor: see `calibrated_head`.

    Returns:
        The head, and accuracies on validation images: `chance`, and of a converged head
        `linear_head`.
    """
    labels = np.concatenate([labels.numpy() for _, labels in sets["validation"]])
    reference = {"chance": float(np.bincount(labels).max() / len(labels))}
    with next_view(net) as features_of:
        if not net.tasks and not is_trained(net._trunk):
            return calibrated_head(features_of, sets["train"], classes, factor), reference
        head = fitted_head(*collect(features_of, sets["train"]), classes)
        found = linear_accuracy(head, *collect(features_of, sets["validation"]))
    print(f"{name}: a linear head on the trunk gets {found:.1%} of validation images", flush=True)
    return head, {**reference, "linear_head": found}


def calibrated_head(features_of: Callable, images, classes: int, factor: float = 1.0):
    """A random linear head on features of one size; see `packnet_tf.heads.scaled_head`.

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
