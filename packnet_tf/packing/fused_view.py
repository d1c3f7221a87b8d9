"""The kernel of a task in training in one pass over memory, for large kernels on CPUs.

TensorFlow runs operation after operation, each over the whole kernel, and a large kernel is in no
cache: comparing, selecting and selecting again takes three times what one loop over all of it does,
and in mixed precision two kernels are cast before one of them is selected. XLA makes that loop.
Whole steps it makes slower on CPUs, convolutions above all, so it gets this part alone. On GPUs and
on JAX nothing is done: the bandwidth is there, or the step is compiled.
"""

import functools
import math
from collections.abc import Callable, Sequence

import keras
from keras import ops

from packnet_tf.backend.distribution import compiles_on_cpu
from packnet_tf.backend.types import Tensor
from packnet_tf.packing.weight import PackedWeight, own_number, ranges, select

LARGE = 1 << 18  # weights


def training_view(weight: PackedWeight, sees: Sequence[int]) -> Tensor:
    """`weight.view(sees)`, bit for bit, for the task that trains it."""
    if math.prod(weight.packed.shape) < LARGE or not compiles_on_cpu():
        return weight.view(sees)
    import tensorflow as tf  # one of its functions is what XLA compiles

    values = _uncast()(weight=weight)
    # The dtype of a Keras variable is the one that it is read in here and now.
    view, own = _compiled(tuple(weight.packed.shape), values[0].dtype, weight.packed.dtype)
    # As tensors, so that other tasks need no compiling anew.
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
    """The view and its gradient, for kernels of one shape: of several, TensorFlow would warn.

    Args:
        shape: of the kernel.
        stored: dtype of its variables.
        read: dtype of the view, another one in mixed precision.
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


class _Uncast(keras.layers.Layer):
    """Gives the values of a packed weight as they are stored, where Keras would cast them.

    Within a layer that has `autocast` off, and a policy that is not mixed, it does not.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.built = True

    def call(self, *, weight: PackedWeight) -> tuple:
        return weight.values


@functools.cache
def _uncast() -> _Uncast:
    return _Uncast()
