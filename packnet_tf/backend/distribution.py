"""What TensorFlow asks for, its distribution strategies above all; nothing on other backends."""

import contextlib
import functools
import os
from typing import TYPE_CHECKING

import keras

from packnet_tf.backend.types import Strategy, Tensor

if TYPE_CHECKING:
    from packnet_tf.net import PackNet


def keep_tf_keras() -> None:
    """Lets `tf.keras` be Keras 3, whatever is imported later.

    TensorFlow decides at the first use of `tf.keras`, by an environment variable that importing
    tensorflow-model-optimization sets to mean Keras 2.
    """
    if keras.backend.backend() == "tensorflow" and not os.environ.get("TF_USE_LEGACY_KERAS"):
        import tensorflow as tf

        _ = tf.keras.__version__


def has_accelerator() -> bool:
    """Whether there is a GPU or TPU: on CPUs XLA makes TensorFlow's convolutions slower."""
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def compiles_on_cpu() -> bool:
    """Whether parts of a step may be given to XLA now: on one CPU, where there is XLA."""
    if keras.backend.backend() != "tensorflow" or has_accelerator():
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy() and _has_xla()


@functools.cache
def _has_xla() -> bool:
    import tensorflow as tf

    with tf.init_scope():  # now, not in the step that is being traced
        try:
            tf.function(lambda x: x + 1.0, jit_compile=True)(1.0)
        except tf.errors.OpError:
            return False
    return True


def owner_dtype() -> str:
    """The dtype of owners and claims made now: uint8, one byte a weight.

    A `MultiWorkerMirroredStrategy` sends the first value of every variable to all workers, which
    TensorFlow can do with few dtypes; int32 is the smallest of them that holds 255 tasks.
    """
    if keras.backend.backend() != "tensorflow":
        return "uint8"
    import tensorflow as tf  # the strategies are TensorFlow's

    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return "int32" if several else "uint8"


def strategy_of(net: "PackNet") -> Strategy:
    """The strategy that the variables of a pack were made under; None where there was none."""
    variable = next(iter(net.state.weights.values())).packed
    return getattr(variable.value, "distribute_strategy", None)


def is_chief(strategy: Strategy) -> bool:
    """Whether this process is the one that writes files: the only one, or the first worker."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or resolver.task_type is None:
        return True
    return resolver.task_type == "chief" or (
        "chief" not in resolver.cluster_spec().as_dict() and resolver.task_id == 0
    )


def has_workers(strategy: Strategy) -> bool:
    """Whether there are several processes, which must do the same."""
    return getattr(strategy, "cluster_resolver", None) is not None


def wait_for_others(strategy: Strategy) -> None:
    """Returns once all workers have come here; at once where there is one."""
    if not has_workers(strategy):
        return
    import tensorflow as tf

    @tf.function
    def meet() -> Tensor:
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)

    meet()


def scope_of(strategy: Strategy) -> contextlib.AbstractContextManager:
    """The scope of a strategy, to make variables beside those that are there."""
    return strategy.scope() if strategy is not None else contextlib.nullcontext()
