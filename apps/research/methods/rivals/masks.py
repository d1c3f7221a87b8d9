"""Masks of scores: pure functions.

A method with masks gives every weight of a kernel a score. The scores choose the weights that a
task sees, and they are trained although a choice has no derivative.
"""

from collections.abc import Sequence

import numpy as np
from keras import ops

from packnet_tf.apps.research.methods.rivals.selection import nth_highest

THRESHOLD, FIRST = 5e-3, 1e-2  # Piggyback's: scores from here up are chosen; their first value


def at_least(scores):
    """Chooses all scores that reach `THRESHOLD`.

    Args:
        scores: float tensor of any shape.

    Returns:
        A bool tensor of that shape.

    Source: Mallya, Davis & Lazebnik, Piggyback, ECCV 2018, section 3.
    """
    return ops.greater_equal(scores, THRESHOLD)


def top_share(scores, share: float):
    """Chooses the highest scores, exactly `round(share * size)` of them.

    Of equal scores, those that come first in C order are chosen first.

    Args:
        scores: float tensor of any shape.
        share: the share to choose, 0 to 1.

    Returns:
        A bool tensor of that shape.

    Source: Ramanujan et al., What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020,
    section 3.
    """
    flat = ops.reshape(scores, (-1,))
    size = flat.shape[0]
    count = round(share * size)
    if count in (0, size):
        return ops.full(scores.shape, count > 0, dtype="bool")
    lowest = nth_highest(flat, count)
    above, equal = ops.greater(flat, lowest), ops.equal(flat, lowest)
    left = count - ops.sum(ops.cast(above, "int32"))
    first = ops.less_equal(ops.cumsum(ops.cast(equal, "int32")), left)
    return ops.reshape(ops.logical_or(above, ops.logical_and(equal, first)), scores.shape)


def straight_through(values, scores, mask):
    """Returns the chosen values, and 0 for others, so that the scores get a gradient.

    The gradient of a score is that of the product `mask * value` with respect to the mask. Values
    that are not chosen get no gradient.

    Args:
        values: float tensor of any shape.
        scores: float tensor of that shape, finite.
        mask: bool tensor of that shape, computed from the scores.

    Source: Bengio, Léonard & Courville, Estimating or Propagating Gradients Through Stochastic
    Neurons, 2013.
    """
    no_change = scores - ops.stop_gradient(scores)  # 0, with a derivative of 1
    return ops.where(mask, values, 0.0) + no_change * ops.stop_gradient(values)


def signed_constants(
    shape: Sequence[int], fan_in: int, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Draws random weights of one magnitude: the deviation of Kaiming's normal distribution.

    Args:
        shape: shape of the kernel.
        fan_in: number of inputs of each output.
        share: share of the weights that a task will see, above 0.
        rng: source of the signs.

    Returns:
        A float32 array.

    Source: Ramanujan et al. 2020, section 4 (signed constant, scaled).
    """
    size = np.float32(np.sqrt(2.0 / (fan_in * share)))
    return np.where(rng.random(tuple(shape)) < 0.5, -size, size).astype("float32")
