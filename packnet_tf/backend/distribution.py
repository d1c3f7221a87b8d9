"""Helpers for TensorFlow and `tf.distribute`; on other backends they do nothing."""

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
from keras import ops

from packnet_tf.backend.types import Strategy, Tensor

if TYPE_CHECKING:
    from packnet_tf.tasks.pack import Pack


def keep_tf_keras() -> None:
    """Makes `tf.keras` resolve to Keras 3, whatever is imported later.

    TensorFlow chooses the version at the first use of `tf.keras`, from an environment variable.
    Importing tensorflow-model-optimization sets that variable to Keras 2.
    """
    if keras.backend.backend() == "tensorflow" and not os.environ.get("TF_USE_LEGACY_KERAS"):
        import tensorflow as tf

        _ = tf.keras.__version__


def has_accelerator() -> bool:
    """Returns whether there is a GPU or TPU. On CPUs, XLA slows TensorFlow's convolutions."""
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def compiles_on_cpu() -> bool:
    """Returns whether XLA may compile parts of a step: on CPUs with XLA, without a strategy."""
    if keras.backend.backend() != "tensorflow" or has_accelerator():
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy() and _has_xla()


@functools.cache
def _has_xla() -> bool:
    import tensorflow as tf

    with tf.init_scope():  # run it eagerly, outside the step that is being traced
        try:
            tf.function(lambda x: x + 1.0, jit_compile=True)(1.0)
        except tf.errors.OpError:
            return False
    return True


def owner_dtype() -> str:
    """Returns the dtype for owners and claims: uint8, or int32 under a multi-worker strategy.

    A `MultiWorkerMirroredStrategy` broadcasts the initial value of every variable. TensorFlow can
    broadcast few dtypes; int32 is the smallest of them that holds 255 tasks.
    """
    if keras.backend.backend() != "tensorflow":
        return "uint8"
    import tensorflow as tf  # the strategies are TensorFlow's

    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return "int32" if several else "uint8"


def strategy_of(net: "Pack") -> Strategy:
    """Returns the strategy under which a pack's variables were created, or None."""
    variable = next(iter(net.state.weights.values())).packed
    return getattr(variable.value, "distribute_strategy", None)


def strategy_of_model(model: keras.Model) -> Strategy:
    """Returns the strategy under which a model was created, or None."""
    return getattr(model, "distribute_strategy", None)


def is_chief(strategy: Strategy) -> bool:
    """Returns whether this process writes files: it is the only process, or the chief worker."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or resolver.task_type is None:
        return True
    return resolver.task_type == "chief" or (
        "chief" not in resolver.cluster_spec().as_dict() and resolver.task_id == 0
    )


def has_workers(strategy: Strategy) -> bool:
    """Returns whether the strategy spans several processes, which must run in step."""
    return getattr(strategy, "cluster_resolver", None) is not None


def has_replicas() -> bool:
    """Returns whether the code runs on one of several replicas of a strategy."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def average_replicas(
    strategy: Strategy, variables: Sequence[tuple[keras.Variable, keras.Variable | None]]
) -> None:
    """Gives variables on every replica the mean of their values on all; without any, does nothing.

    Args:
        strategy: of the variables, or None.
        variables: pairs of a variable of floats, which replicas update each for itself, and of
            what a replica's value counts, at least 0; None: all alike.
    """
    if not variables or strategy is None or strategy.num_replicas_in_sync == 1:
        return
    import tensorflow as tf

    def weighted() -> list[tuple[Tensor, Tensor]]:
        found = []
        for variable, weight in variables:
            own = ops.ones(()) if weight is None else ops.cast(weight, "float32")
            own = ops.cast(own, variable.dtype)
            found.append((ops.where(own > 0, variable * own, 0), own))
        return found

    @tf.function
    def sums() -> list[list[Tensor]]:
        return [
            [strategy.reduce("SUM", part, axis=None) for part in pair]
            for pair in strategy.run(weighted)
        ]

    for (variable, _), (total, weight) in zip(variables, sums(), strict=True):
        variable.assign(total / weight)


def wait_for_others(strategy: Strategy) -> None:
    """Waits until all workers have made this call; returns at once without workers."""
    if not has_workers(strategy):
        return
    import tensorflow as tf

    @tf.function
    def meet() -> Tensor:
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

    meet()


def scope_of(strategy: Strategy) -> contextlib.AbstractContextManager:
    """Returns the strategy's scope, for creating variables under it."""
    return strategy.scope() if strategy is not None else contextlib.nullcontext()
