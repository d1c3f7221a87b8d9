"""Whether a model can be a trunk."""

import keras

from packnet_tf.layers import Packed
from packnet_tf.task_model import TaskModel


def check_trunk(trunk) -> None:
    """Refuses what cannot be packed.

    Raises:
        ValueError: the message says why, and what to do.
    """
    if any(isinstance(layer, (Packed, TaskModel)) for layer in _layers_of(trunk)):
        raise ValueError(
            "Cannot pack this trunk: it is packed already. Add tasks to the PackNet it belongs "
            "to, or pack the plain model that net.unpack(task) returns."
        )
    if not isinstance(trunk, keras.Model):
        raise ValueError(
            f"Cannot pack {trunk!r}: expected a Keras model. Write PackNet(keras.Sequential("
            "[keras.Input(shape), ...])) or pass a keras.applications model."
        )
    sequential = isinstance(trunk, keras.Sequential)
    functional = any(base.__name__ == "Functional" for base in type(trunk).__mro__)
    if not (sequential or functional):
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is a subclassed model ({type(trunk).__name__}), "
            "whose graph only its own code knows. Build it as a Functional or Sequential model; a "
            "subclassed layer inside one is fine."
        )
    for layer in trunk._flatten_layers():
        if isinstance(layer, keras.layers.Lambda):
            _check_lambda(layer)
    if not trunk.built:
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is not built yet. Give it an input shape, "
            "keras.Sequential([keras.Input((96, 96, 3)), ...]), or call it once on data."
        )


def _check_lambda(layer) -> None:
    try:
        type(layer).from_config(layer.get_config())
    except ValueError as error:
        raise ValueError(
            f"Cannot pack layer '{layer.name}': it is a Lambda around a Python function, which no "
            "file can hold safely. Write it with keras.ops in the graph, or as a layer class of "
            "your own, registered with keras.saving.register_keras_serializable."
        ) from error


def _layers_of(trunk) -> list:
    return trunk._flatten_layers() if isinstance(trunk, keras.layers.Layer) else []
