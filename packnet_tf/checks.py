"""Whether a model can be a trunk, a layer a head, and a string the name of a task."""

import re
import warnings
from collections.abc import Sequence

import keras

from packnet_tf.layers import Packed
from packnet_tf.packed_weight import MAX_TASKS
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
    if not _has_graph(trunk):
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is a subclassed model ({type(trunk).__name__}), "
            "whose graph only its own code knows. Build it as a Functional or Sequential model; a "
            "subclassed layer inside one is fine."
        )
    _check_layers(trunk)
    if not trunk.built:
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is not built yet. Give it an input shape, "
            "keras.Sequential([keras.Input((96, 96, 3)), ...]), or call it once on data."
        )


def check_name(name: str, taken: Sequence[str]) -> None:
    """Refuses what cannot be the name of a new task.

    Raises:
        ValueError: it is taken, no file could have it, or there are too many tasks.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            f"Cannot add a task named {name!r}: the name must be usable as a file name, up to "
            "100 letters, digits, '_', '-' and '.', not starting with '.' or '-'. Write "
            "'my_task', for instance."
        )
    if name in taken:
        raise ValueError(
            f"Cannot add task '{name}': the pack has a task of that name. Its tasks are "
            f"{', '.join(map(repr, taken))}; choose another name."
        )
    if len(taken) == MAX_TASKS:
        raise ValueError(
            f"Cannot add task '{name}': a pack holds {MAX_TASKS} tasks at most. Start a second "
            "pack from the same trunk."
        )


def check_head(task: str, head) -> None:
    """Refuses what cannot be the head of a task.

    Raises:
        ValueError: the message says why, and what to do.
    """
    if not isinstance(head, keras.layers.Layer):
        raise ValueError(
            f"Cannot add task '{task}': its head must be a Keras layer or model, for instance "
            f"keras.layers.Dense(10); got {head!r}."
        )
    if isinstance(head, keras.Model) and not _has_graph(head):
        raise ValueError(
            f"Cannot add task '{task}': its head is a subclassed model ({type(head).__name__}), "
            "which cannot be copied. Build it as a Functional or Sequential model, or as a layer."
        )
    _check_layers(head)


def _has_graph(model) -> bool:
    names = [base.__name__ for base in type(model).__mro__]
    return "Sequential" in names or "Functional" in names


def _check_layers(model) -> None:
    """Refuses and warns of layers that a saved pack could not be read back with."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Lambda):
            _check_lambda(layer)
        cls = type(layer)
        known = cls.__module__.partition(".")[0] in ("keras", "keras_hub", "packnet_tf")
        if not known and keras.saving.get_registered_name(cls) == cls.__name__:
            warnings.warn(
                f"Layer '{layer.name}' is a {cls.__name__}, which is not registered with Keras: "
                "a pack with it can be saved but not loaded. Decorate the class with "
                "@keras.saving.register_keras_serializable().",
                stacklevel=4,
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
