"""What a task has besides its packed weights."""

import dataclasses

import keras
import numpy as np
from keras import ops

from packnet_tf.cloning import finalize
from packnet_tf.policy import own_weights
from packnet_tf.task_model import TaskModel


@dataclasses.dataclass
class TaskRecord:
    """What a task has besides its packed weights.

    Attributes:
        name, number: its name, and its place in the order of packing, from 1.
        head: the output layers, a template that models get copies of.
        classes: names of its classes in output order, where they are known.
        head_values: values of the head's weights, once committed.
        own_values: by place in `own_weights(trunk)`, the values this task does not share.
        claim_ratio: fraction of the free weights that it claimed.
        owned: how many weights of each packed weight it owns, once committed.
    """

    name: str
    number: int
    head: keras.layers.Layer
    classes: list[str] | None = None
    head_values: list[np.ndarray] = dataclasses.field(default_factory=list)
    own_values: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    claim_ratio: float = 1.0
    owned: list[int] = dataclasses.field(default_factory=list)

    def keep(self, model: TaskModel, shared) -> None:
        """Takes the values of a trained model: its head's, and those it does not share.

        Args:
            model: the task's model.
            shared: the store of the pack.
        """
        self.head_values = values_of(model.head.weights)
        own = values_of(variable for _, variable in own_weights(model.trunk))
        start = values_of(variable for _, variable in own_weights(shared))
        pairs = enumerate(zip(own, start, strict=True))
        self.own_values = {place: a for place, (a, b) in pairs if not np.array_equal(a, b)}


def values_of(variables) -> list[np.ndarray]:
    """Copies of the values of variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign(model: TaskModel, record: TaskRecord) -> None:
    """Puts a record's own values into a model of its task."""
    for variable, value in zip(model.head.weights, record.head_values, strict=True):
        variable.assign(value)
    variables = own_weights(model.trunk)
    for place, value in record.own_values.items():
        variables[place][1].assign(value)
    finalize(model)
