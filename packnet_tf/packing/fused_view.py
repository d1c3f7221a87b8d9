"""Computes a large kernel's training view in one pass over memory on CPUs.

TensorFlow runs one operation at a time, each over the whole kernel, and a large kernel does not fit
into the cache. Compare and two selects therefore take three times as long as one fused loop. In
mixed precision, two kernels are also cast before one is selected. XLA fuses these operations.
Compiling the whole step would slow down CPUs, above all for convolutions, so only the view is
compiled. On GPUs there is enough memory bandwidth, and on JAX the step is compiled anyway.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
from keras import ops

from packnet_tf.backend.distribution import compiles_on_cpu
from packnet_tf.backend.types import Tensor
from packnet_tf.packing.weight import PackedWeight, own_number, ranges, select

LARGE = 1 << 18  # weights

Computed = TypeVar("Computed")


def training_view(weight: PackedWeight, sees: Sequence[int]) -> Tensor:
    """Computes `weight.view(sees)` for the task in training, with identical bits."""
    if math.prod(weight.packed.shape) < LARGE or not compiles_on_cpu():
        return weight.view(sees)
    import tensorflow as tf  # XLA compiles a tf.function

    values = without_autocast(lambda: weight.values)
    # Inside a layer, `Variable.dtype` is the dtype after autocasting.
    view, own = _compiled(tuple(weight.packed.shape), values[0].dtype, weight.packed.dtype)
    # As tensors, so that another task reuses the compiled function.
    number, seen = tf.nest.map_structure(
        lambda value: tf.constant(value, weight.owner.dtype), (own_number(sees), ranges(sees))
    )

    @tf.custom_gradient
    def kernel(
        trainable: Tensor, packed: Tensor, owner: Tensor, claim: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], tuple]]:
        def gradients(upstream: Tensor) -> tuple:
            return own(upstream, claim, number), None, None, None

        return view(trainable, packed, owner, claim, number, seen), gradients

    return kernel(*values)


@functools.cache
def _compiled(
    shape: tuple[int, ...], stored: str, read: str
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Compiles the view and its gradient for one kernel shape.

    One tf.function for several shapes would retrace, and TensorFlow would warn.

    Args:
        shape: the kernel's shape.
        stored: dtype of the kernel's variables.
        read: dtype of the view; it differs in mixed precision.
    """
    import tensorflow as tf

    def view(
        trainable: Tensor,
        packed: Tensor,
        owner: Tensor,
        claim: Tensor,
        task: Tensor,
        seen: Sequence[tuple[Tensor, Tensor]],
    ) -> Tensor:
        return ops.cast(select(trainable, packed, owner, claim, task, seen), read)

    def own(upstream: Tensor, claim: Tensor, task: Tensor) -> Tensor:
        return ops.cast(ops.where(ops.equal(claim, task), upstream, 0.0), stored)

    traced = functools.partial(tf.function, jit_compile=True, autograph=False)
    return traced(view), traced(own)


def without_autocast(compute: Callable[[], Computed]) -> Computed:
    """Calls a function in which variables have the dtype that they are stored in.

    Args:
        compute: takes no arguments.
    """
    return _uncast()(compute=compute)


class _Uncast(keras.layers.Layer):
    """Keras does not autocast within a layer that has `autocast=False` and no mixed policy."""

    def __init__(self) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.built = True

    def call(self, *, compute: Callable[[], Any]) -> Any:
        return compute()


@functools.cache
def _uncast() -> _Uncast:
    return _Uncast()
