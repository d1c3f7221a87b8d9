"""`TaskRecord`: everything about a task except its packed weights.

Heads are kept as configurations, and values as bytes, in the form that files store. A pack of a
hundred tasks can be saved and read without creating any head; heads and arrays are created together
with the task's model.
"""

import dataclasses
import datetime
import functools
import math
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.keras_internals import limited
from packnet_tf.backend.text import quoted
from packnet_tf.packing.cloning import copy_layer, finalize
from packnet_tf.packing.configs import changed
from packnet_tf.packing.policy import own_weights
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import PackedWeight, assign_values, values_of
from packnet_tf.tasks.integrity.changes import HEAD, changes
from packnet_tf.tasks.integrity.digests import owned_digests
from packnet_tf.tasks.overlays import assign_overlay, overlay_of
from packnet_tf.tasks.task_model import Phase, TaskModel


class Head:
    """A task's output layers, as layers or as their Keras configuration.

    Attributes:
        layer: a layer or model that belongs to no graph; models get copies of it. Its values are
            not the task's.
        config: the layer's configuration from `serialize_keras_object`.

    Raises:
        ValueError: `layer` is read, and Keras cannot create it from the configuration.
    """

    def __init__(self, layer: keras.layers.Layer | None = None, config: dict | None = None):
        given = {"layer": layer, "config": config}
        vars(self).update({name: value for name, value in given.items() if value is not None})

    @functools.cached_property
    def layer(self) -> keras.layers.Layer:
        try:
            # A copy, because Keras pops models from the configuration.
            return limited(
                lambda: keras.saving.deserialize_keras_object(changed(self.config, dict))
            )
        except Exception as error:  # Keras raises many types
            raise ValueError(
                "A head cannot be made from its configuration. If it is a layer of your own, "
                "register it (keras.saving.register_keras_serializable) before the pack is read; "
                f"otherwise restore the pack from a backup. Keras says: {quoted(error)}"
            ) from error

    @functools.cached_property
    def config(self) -> dict:
        return keras.saving.serialize_keras_object(self.layer)


class TaskKey:
    """Identifies a task; a later task of the same name has another key.

    Attributes:
        models: the models of the committed task that somebody holds.
        made_of: the configurations of the open task's layers when its model was made.
    """

    def __init__(self) -> None:
        self.models: weakref.WeakSet[TaskModel] = weakref.WeakSet()
        self.made_of: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class TaskRecord:
    """Everything about a task except its packed weights.

    Attributes:
        name: the task's name.
        sees: 1-based numbers of the tasks whose weights are visible, ascending. The last is the
            task's own number, its position among the tasks that own weights, or `OVERLAY_NUMBER`.
        head: the output layers.
        classes: names of the classes in output order, if known.
        claim_ratio: fraction of the free weights that the task claimed, 0 to 1.
        statistics: source of the trunk's normalisation statistics, see `PackNet.add_task`.
        phase: the phase that the verbs have reached.
        weights_phase: the phase of the values. The open task's model has it in a variable; it is an
            earlier one than `phase` if the weights were rolled back.
        claims: number of weights that the task claimed after its last prune; None before it, or if
            unknown.
        batches_seen: the model's `batches_seen` when its values were recorded.
        own_places: positions in `own_weights(trunk)` of the values that the task does not share.
        head_weights: shape and dtype of each of the head's weights.
        values: the task's own values, then its head's weights, concatenated.
        owned: number of weights that the task owns, or overrides, in each packed weight, once
            committed.
        owned_digest: digest of the weights that it owns, see `owned_digests`; empty until it is
            committed.
        results: accuracies by name, 0 to 1, see `PackNet.results`.
        metadata: JSON values by name, see `PackNet.metadata`.
        adopted: whether the task is the pretrained trunk, see `PackNet.adopt`.
        overlay: fraction of all packed weights that the task may override; None: it owns weights.
        overlaid: the places and values of its overlay, see `overlay_of`.
        key: identifies the task.
    """

    name: str
    sees: tuple[int, ...]
    head: Head
    classes: list[str] | None = None
    claim_ratio: float = 1.0
    statistics: str = "task"
    phase: Phase = Phase.TRAINING
    weights_phase: Phase = Phase.TRAINING
    batches_seen: float = 0.0
    own_places: Sequence[int] = ()
    head_weights: Sequence[tuple[list[int], str]] = ()
    values: bytes = b""
    owned: Sequence[int] = ()
    owned_digest: str = ""
    results: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adopted: bool = False
    overlay: float | None = None
    overlaid: bytes = b""
    claims: int | None = None
    key: TaskKey = dataclasses.field(default_factory=TaskKey)

    @property
    def number(self) -> int:
        """The task's position among those that own weights, from 1; or `OVERLAY_NUMBER`."""
        return self.sees[-1]

    @property
    def owns(self) -> bool:
        """Whether the task owns weights; one with an overlay overrides those of others."""
        return self.overlay is None

    def kept(self, model: TaskModel, store: PackedTrunk | None = None) -> "TaskRecord":
        """Returns a copy of the record with the current values of the task's model.

        Args:
            model: the task's model.
            store: the trunk whose values the task shares; None records all unpacked values.
        """
        own = values_of(variable for _, variable in own_weights(model.trunk))
        places: Sequence[int] = range(len(own))
        if store is not None:
            start = values_of(variable for _, variable in own_weights(store))
            places = [place for place in places if not np.array_equal(own[place], start[place])]
        head = values_of(model.head.weights)
        changed_head = HEAD in changes(model, self.key.made_of)
        values = [*(own[place] for place in places), *head]
        return dataclasses.replace(
            self,
            head=Head(copy_layer(model.head)) if changed_head else self.head,
            weights_phase=model.current_phase,
            batches_seen=float(keras.ops.convert_to_numpy(model.batches_seen)),
            own_places=list(places),
            head_weights=[(list(value.shape), str(value.dtype)) for value in head],
            values=b"".join(value.tobytes() for value in values),
            overlaid=b"" if self.owns else overlay_of(_packed_weights(model)),
        )

    def committed(
        self, model: TaskModel, store: PackedTrunk, weights: Iterable[PackedWeight]
    ) -> "TaskRecord":
        """Returns the record of the task once it is committed.

        Args:
            model, store: as for `kept`.
            weights: the packed weights, which the task owns or overrides by now.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        weights = list(weights)
        (digest,) = owned_digests(weights, [self.number]) if self.owns else [""]
        return dataclasses.replace(
            self.kept(model, store),
            phase=Phase.COMMITTED,
            owned=[weight.owned(self.number) for weight in weights],
            owned_digest=digest,
            metadata={**self.metadata, "committed": now},
        )

    def assign_to(self, model: TaskModel) -> None:
        """Assigns the recorded values and phase to a model.

        Args:
            model: a model built from this record.

        Raises:
            ValueError: the model's head has weights of other shapes or dtypes, or the overlay does
                not fit.
        """
        head = model.head.weights
        described = [(list(variable.shape), str(variable.dtype)) for variable in head]
        if described != [(list(shape), dtype) for shape, dtype in self.head_weights]:
            raise ValueError(
                f"The head of task '{self.name}' has the weights {quoted(described)}, and the pack "
                f"holds values for {quoted(self.head_weights)}. Restore the pack from a backup."
            )
        own = [variable for _, variable in own_weights(model.trunk)]
        targets = [*(own[place] for place in self.own_places), *head]
        assign_values(targets, self.arrays(own))
        if not self.owns:
            assign_overlay(self.overlaid, _packed_weights(model), self.number)
        finalize(model)
        model.phase.assign(int(self.weights_phase))
        model.batches_seen.assign(self.batches_seen)

    def warn_of_changed_models(self, store: PackedTrunk) -> None:
        """Warns if a held model of the committed task has other values than the task.

        The record holds the task's own values, so the pack does not change with its models.

        Args:
            store: the trunk whose values the task shares.
        """
        for model in self.key.models:
            changed = self._changed_in(model, store)
            if changed is not None:
                warnings.warn(
                    f"A model of task '{self.name}' does not answer as the task does: {changed} "
                    "has been assigned since the commit. The pack has not changed; "
                    f"net.task_model('{self.name}') returns a model with the committed values.",
                    stacklevel=5,
                )

    def _changed_in(self, model: TaskModel, store: PackedTrunk) -> str | None:
        """Returns the path of a variable whose value is not the task's; None if there is none."""
        own = [variable for _, variable in own_weights(model.trunk)]
        expected: list = [variable for _, variable in own_weights(store)]
        values = self.arrays(own)
        for place, value in zip(self.own_places, values, strict=False):
            expected[place] = value
        expected += values[len(self.own_places) :]
        for variable, value in zip([*own, *model.head.weights], expected, strict=True):
            if not np.array_equal(*map(keras.ops.convert_to_numpy, (variable, value))):
                return f"'{variable.path}'"
        if not self.owns and overlay_of(_packed_weights(model)) != self.overlaid:
            return "its overlay"
        return None

    def arrays(self, own: Sequence[keras.Variable]) -> list[np.ndarray]:
        """Returns the task's own values, then its head's weights, as arrays.

        Args:
            own: the unpacked weights of the trunk, or of a copy.
        """
        places = [(own[place].shape, own[place].dtype) for place in self.own_places]
        found, start = [], 0
        for shape, dtype in [*places, *self.head_weights]:
            value = np.frombuffer(self.values, np.dtype(dtype), math.prod(shape), start)
            found.append(value.reshape(shape))
            start += value.nbytes
        return found

    @property
    def head_bytes(self) -> int:
        """Size of the head's weights in bytes."""
        return sum(
            math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self.head_weights
        )

    @property
    def head_size(self) -> int:
        """Number of the head's weights."""
        return sum(math.prod(shape) for shape, _ in self.head_weights)


def _packed_weights(model: TaskModel) -> list[PackedWeight]:
    return list(model.trunk.packed_weights().values())
