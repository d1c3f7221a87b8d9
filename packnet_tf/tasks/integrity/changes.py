"""Layers of an open task that were changed after its model was made."""

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from packnet_tf.packing.configs import answers_apart, changed

if TYPE_CHECKING:
    from packnet_tf.tasks.records import TaskRecord
    from packnet_tf.tasks.task_model import TaskModel

HEAD = "its head"
ROUNDING = 1e-6  # relative difference of two models of the same layers and values


def configurations(model: "TaskModel") -> dict[str, Any]:
    """Returns the configurations of a model's layers: by path those of the trunk, and the head's.

    Args:
        model: the model of a task.
    """
    layers = {path: x for path, x in model.trunk.paths() if not isinstance(x, keras.Model)}
    layers[HEAD] = model.head
    found = {}
    for path, layer in layers.items():
        # A layer within another is made by that one, and need not have a configuration of its own.
        with contextlib.suppress(Exception):
            found[path] = changed(layer.get_config(), dict)
    return found


def changes(model: "TaskModel", before: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the arguments that were changed, by layer, those of `trainable` left out.

    Args:
        model: the model of a task.
        before: its `configurations` when it was made.
    """
    now = configurations(model)
    found = {
        path: [name for name in now[path] if not _same({name: now[path][name]}, before[path])]
        for path in now.keys() & before.keys()
    }
    return {path: names for path, names in found.items() if names}


def check_layers(
    record: "TaskRecord", model: "TaskModel", again: Callable[[], "TaskModel"], verb: str
) -> None:
    """Refuses an open task that would not answer as its model does.

    Args:
        record: the task.
        model: its model.
        again: makes the model again from what the pack knows of the task.
        verb: what the caller wants to do, for the message.

    Raises:
        RuntimeError: a change of layers would be lost.
    """
    found = changes(model, record.key.made_of)
    if not found:
        return
    try:
        apart = answers_apart(model, again, model.input)
    except Exception:  # Keras raises many classes about weights that it does not expect
        apart = np.inf
    if apart > ROUNDING:
        names = "; ".join(f"{path} ({', '.join(names[:3])})" for path, names in found.items())
        raise RuntimeError(
            f"Cannot {verb}: layers of task '{record.name}' were changed after its model was made, "
            f"and the task would not answer as the model does: {names}. Undo that, or change the "
            "trunk before PackNet(trunk), and the head before add_task, which copy them."
        )


def _same(part: Any, whole: Any) -> bool:
    """Whether two values of configurations are equal; of dicts, those of the first one's keys."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(
            name == "trainable" or (name in whole and _same(value, whole[name]))
            for name, value in part.items()
        )
    if isinstance(part, (list, tuple)) and isinstance(whole, (list, tuple)):
        return len(part) == len(whole) and all(map(_same, part, whole))
    if isinstance(part, np.ndarray) or isinstance(whole, np.ndarray):
        return np.array_equal(part, whole)
    return part is whole or bool(part == whole)
