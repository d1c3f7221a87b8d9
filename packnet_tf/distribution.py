"""What TensorFlow's distribution strategies ask for; nothing on Keras's other backends."""

import contextlib

import keras


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


def scope_of(variable: keras.Variable) -> contextlib.AbstractContextManager:
    """The scope of the strategy that a variable was made under, to make others beside it."""
    strategy = getattr(variable.value, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()
