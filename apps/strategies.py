"""The devices that `packnet train` uses."""

import contextlib

import keras


def chosen_strategy(name: str, precision: str) -> contextlib.AbstractContextManager:
    """Within it packs are made for these devices, and computed in this precision.

    Args:
        name: "none", "mirrored" (all GPUs of this host) or "multi_worker" (the hosts of TF_CONFIG).
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    import tensorflow as tf

    keras.config.set_dtype_policy(precision)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    return contextlib.nullcontext()
