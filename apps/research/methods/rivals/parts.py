"""The parts of a trunk: kernels, the weights that every task has of its own, and the rest."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import keras
import numpy as np

from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.packing.layers import PACKED_CLASSES
from packnet_tf.packing.policy import NORMS, Policy, own_weights
from packnet_tf.packing.registry import packable_layers
from packnet_tf.packing.weight import assign_values

ONES = ("gamma", "scale", "moving_variance")  # weights of normalisation that start at 1


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel that packing would pack.

    Attributes:
        variable: its variable.
        per_channel: whether it is depthwise: every output depends on a single input channel.
    """

    variable: keras.Variable
    per_channel: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """Its shape as a matrix: the inputs of each output, and the outputs."""
        columns = math.prod(self.shape[-2:] if self.per_channel else self.shape[-1:])
        return math.prod(self.shape) // columns, columns


class Parts:
    """The weights of a trunk by what a rival does with them.

    Args:
        trunk: a functional model of plain layers, whose kernels are trainable.
        norms: "own" if every task has its own normalisation; "trunk" if all keep the trunk's.

    Attributes:
        kernels: the kernels that packing would pack.
        own: weights of which every task has a copy: biases, and normalisation if it is "own".
        rest: all other weights; they do not change.
    """

    def __init__(self, trunk: keras.Model, norms: str):
        self.kernels = _kernels(trunk)
        packed = {id(kernel.variable) for kernel in self.kernels}
        kinds = NORMS if norms == "own" else ()
        self.own, self.rest = [], []
        for layer, variable in own_weights(trunk):
            if id(variable) in packed:
                continue
            bias = variable.name == "bias" and not isinstance(layer, NORMS)
            (self.own if bias or isinstance(layer, kinds) else self.rest).append(variable)

    @functools.cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the kernels."""
        return [kernel.shape for kernel in self.kernels]

    def show(self, kernels: Sequence[np.ndarray], own: Sequence[np.ndarray]) -> None:
        """Assigns kernels and a task's own weights."""
        assign_values([kernel.variable for kernel in self.kernels], kernels)
        assign_values(self.own, own)

    def freeze(self) -> None:
        """Freezes all weights but the task's own; computed kernels unfreeze what they train."""
        for variable in [*(kernel.variable for kernel in self.kernels), *self.rest]:
            variable.trainable = False

    def forget(self) -> None:
        """Sets the own weights to the usual initial values: 1 for gains and variances, else 0."""
        assign_values(
            self.own, [np.full(v.shape, float(v.name in ONES), "float32") for v in self.own]
        )


def _kernels(trunk: keras.Model) -> list[Kernel]:
    packable = packable_layers(trunk, Policy())
    depthwise = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    return [
        Kernel(getattr(layer, name), isinstance(layer, depthwise) or name == "depthwise_kernel")
        for layer in all_layers(trunk)
        if id(layer) in packable
        for name in PACKED_CLASSES[type(layer)].packed_names
        if getattr(layer, name, None) is not None
    ]
