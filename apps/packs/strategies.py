"""The devices that `packnet train` uses."""

import contextlib


def chosen_strategy(name: str) -> contextlib.AbstractContextManager:
    """Returns the scope in which a pack is made for these devices.

    Args:
        name: "none", "mirrored" (all GPUs of this host) or "multi_worker" (the hosts of TF_CONFIG).
    """
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy().scope()
    return contextlib.nullcontext()
