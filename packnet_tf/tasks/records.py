"""What a task has besides its packed weights, as a pack keeps it: in bytes, as it stands in files.

A pack of a hundred tasks is saved and read without going through what each of them has: heads are
made, and values cut into arrays, when a model of their task is.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from packnet_tf.packing.cloning import finalize
from packnet_tf.packing.configs import changed
from packnet_tf.packing.policy import own_weights
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import values_of
from packnet_tf.tasks.task_model import Phase, TaskModel


class Head:
    """Output layers that models get copies of: layers, or their Keras configuration.

    Attributes:
        layer: an unattached layer or model, whose values are not the task's.
        config: the same as `serialize_keras_object` describes it.

    Raises:
        ValueError: the layer is asked for, and Keras cannot make it of the configuration.
    """

    def __init__(self, layer: keras.layers.Layer | None = None, config: dict | None = None):
        given = {"layer": layer, "config": config}
        vars(self).update({name: value for name, value in given.items() if value is not None})

    @functools.cached_property
    def layer(self) -> keras.layers.Layer:
        try:
            # A copy: Keras takes models out of the configuration that it is given.
            return keras.saving.deserialize_keras_object(changed(self.config, dict))
        except Exception as error:  # Keras raises many kinds
            raise ValueError(
                "A head cannot be made from its configuration. If it is a layer of your own, "
                "register it (keras.saving.register_keras_serializable) before the pack is read; "
                f"otherwise restore the pack from a backup. Keras says: {error}"
            ) from error

    @functools.cached_property
    def config(self) -> dict:
        return keras.saving.serialize_keras_object(self.layer)


@dataclasses.dataclass(frozen=True, eq=False)
class TaskRecord:
    """What a task has besides its packed weights.

    Attributes:
        name: its name.
        sees: numbers of the tasks whose weights it sees, ascending, from 1; the last is its own,
            its place in the order of packing.
        head: the output layers.
        classes: names of its classes in output order, where they are known.
        claim_ratio: fraction of the free weights that it claimed.
        statistics: what the trunk normalises by, see `PackNet.add_task`.
        phase: the phase that verbs have brought it to. The model of the open task has one too, in
            a variable: that of its weights. It is an earlier one where they were rolled back.
        batches_seen: those that its model had seen when its values were kept.
        own_places: places in `own_weights(trunk)` of the values this task does not share.
        head_weights: shape and dtype of each of the head's weights.
        values: its own values and its head's weights, one after another.
        owned: how many weights of each packed weight it owns, once committed.
        results: accuracies by name, see `PackNet.results`.
        adopted: whether it is the trunk as it came, see `PackNet.adopt`.
        key: tells the task from others, also from a later one of the same name.
    """

    name: str
    sees: tuple[int, ...]
    head: Head
    classes: list[str] | None = None
    claim_ratio: float = 1.0
    statistics: str = "task"
    phase: Phase = Phase.TRAINING
    batches_seen: float = 0.0
    own_places: Sequence[int] = ()
    head_weights: Sequence[tuple[list[int], str]] = ()
    values: bytes = b""
    owned: Sequence[int] = ()
    results: Mapping[str, float] = dataclasses.field(default_factory=dict)
    adopted: bool = False
    key: object = dataclasses.field(default_factory=object)

    @property
    def number(self) -> int:
        """Its place in the order of packing, from 1."""
        return self.sees[-1]

    def kept(self, model: TaskModel, store: PackedTrunk | None = None) -> "TaskRecord":
        """The record with the values of the task's model: its head's, and those it does not share.

        Args:
            model: the task's model.
            store: the trunk whose values it shares; None: it shares none.
        """
        own = values_of(variable for _, variable in own_weights(model.trunk))
        places: Sequence[int] = range(len(own))
        if store is not None:
            start = values_of(variable for _, variable in own_weights(store))
            places = [place for place in places if not np.array_equal(own[place], start[place])]
        head = values_of(model.head.weights)
        values = [*(own[place] for place in places), *head]
        return dataclasses.replace(
            self,
            phase=model.current_phase,
            batches_seen=float(keras.ops.convert_to_numpy(model.batches_seen)),
            own_places=list(places),
            head_weights=[(list(value.shape), str(value.dtype)) for value in head],
            values=b"".join(value.tobytes() for value in values),
        )

    def assign_to(self, model: TaskModel) -> None:
        """Gives a model of the task its values, and its phase.

        Args:
            model: made from this record.

        Raises:
            ValueError: the model's head has weights of other shapes.
        """
        head = model.head.weights
        described = [(list(variable.shape), str(variable.dtype)) for variable in head]
        if described != [(list(shape), dtype) for shape, dtype in self.head_weights]:
            raise ValueError(
                f"The head of task '{self.name}' has the weights {described}, and the pack holds "
                f"values for {self.head_weights}. Restore the pack from a backup."
            )
        own = own_weights(model.trunk)
        start = 0
        for variable in [*(own[place][1] for place in self.own_places), *head]:
            dtype, count = np.dtype(variable.dtype), math.prod(variable.shape)
            value = np.frombuffer(self.values, dtype, count, start)
            variable.assign(value.reshape(variable.shape))
            start += value.nbytes
        finalize(model)
        model.phase.assign(int(self.phase))
        model.batches_seen.assign(self.batches_seen)

    @property
    def head_bytes(self) -> int:
        """Bytes of the head's weights."""
        return sum(
            math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.head_weights
        )

    @property
    def head_size(self) -> int:
        """Number of the head's weights."""
        return sum(math.prod(shape) for shape, _ in self.head_weights)
