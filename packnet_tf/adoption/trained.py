"""Tells a trained trunk from one with random weights, which would be no base."""

import math
from collections.abc import Iterator

import keras
import numpy as np

from packnet_tf.backend.keras_internals import all_layers, direct_variables
from packnet_tf.packing.initializers import initializer_of
from packnet_tf.packing.layers import Packed

# Two draws of n values are further apart by Kolmogorov and Smirnov, in units of the root of 2 / n,
# once in 100,000 times. Training moves some kernel further.
FAR = 2.5


def is_trained(trunk: keras.Model) -> bool:
    """Whether a trunk's weights differ from what their initializers give.

    Training moves biases, gains and moving statistics away from their constant initial values. In a
    trunk without any of these, it moves kernels away from their initial distribution.
    Steps so few that they do not, are not seen.

    Args:
        trunk: a built model, or a packed one to which no task was added. One without such weights
            counts as trained.

    Example:
        >>> trunk = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, use_bias=False)])
        >>> is_trained(trunk)
        False
    """
    constant, random = [], []
    for variable, start in _initialized(trunk):
        kind = type(start).__name__
        if kind in ("Zeros", "Ones"):
            values = keras.ops.convert_to_numpy(variable)
            constant.append(bool((values != float(kind == "Ones")).any()))
        elif "seed" in start.get_config():
            random.append((variable, start))
    if constant:
        return any(constant)
    return not random or any(is_far_from_initial(*drawn) for drawn in random)


def is_far_from_initial(variable: keras.Variable, start: keras.initializers.Initializer) -> bool:
    """Whether a weight is distributed otherwise than its initializer draws it.

    Args:
        variable: the weight.
        start: an initializer with a seed.
    """
    again = type(start).from_config({**start.get_config(), "seed": 0})
    mine, drawn = (
        np.sort(np.ravel(keras.ops.convert_to_numpy(values)))
        for values in (variable, again(tuple(variable.shape), dtype="float32"))
    )
    below = np.searchsorted(drawn, mine, side="right") / len(drawn)
    distance = np.abs(below - np.arange(1, len(mine) + 1) / len(mine)).max()
    return bool(distance > FAR * math.sqrt(2 / len(mine)))


def _initialized(trunk: keras.Model) -> Iterator[tuple]:
    """Yields the pairs of a weight and its initializer."""
    for layer in all_layers(trunk):
        weights = {variable.name: variable for variable in direct_variables(layer)}
        if isinstance(layer, Packed):
            weights |= {name: weight.packed for name, weight in layer.packed_weights.items()}
        for name, variable in weights.items():
            start = initializer_of(layer, name)
            if start is not None:
                yield variable, start
