"""The Keras model of one task: its view of the trunk, and its head."""

import contextlib
import enum
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.distribution import keep_tf_keras
from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.multi_worker import FittingModel
from packnet_tf.backend.optimizers import refuse_strange
from packnet_tf.backend.types import Tensors
from packnet_tf.normalization.following import as_plain, follow_steps, momentum_after
from packnet_tf.normalization.seen_data import SeenData
from packnet_tf.packing.layers import (
    Packed,
    check_new_values,
    count_network_params,
    network_weights,
)
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.tasks.callback_order import in_working_order

if TYPE_CHECKING:
    from packnet_tf.net import PackNet
    from packnet_tf.tasks.records import TaskRecord

keep_tf_keras()
GIVEN = "trainable_as_given"  # attribute that keeps a head's own `trainable` when it is frozen


class Phase(enum.IntEnum):
    """The phases of a task; the prune begins the retraining."""

    TRAINING = 0
    RETRAINING = 1
    COMMITTED = 2


@keras.saving.register_keras_serializable("packnet_tf")
class TaskModel(FittingModel):
    """A functional Keras model of one task, created by `PackNet.add_task` or `task_model`.

    Compile, fit, evaluate, predict and save it like any Keras model. Once its task is committed,
    the model is for inference only: it refuses training and new weights, because both would change
    weights that later tasks use.

    Attributes:
        phase: int32 variable, the `Phase` of the model's weights. It is a variable so that
            checkpoints and `EarlyStopping(restore_best_weights=True)` include it.
        pack: the `PackNet` of the task; None for a model that was loaded on its own.
        task_name: the task's name; None for a model that was loaded on its own.
        batches_seen: float32 variable, the number of training batches since the task began or was
            pruned; moving statistics average over these.
        seen: references to the training data that the model has been given.
    """

    pack: "PackNet | None" = None
    task_name: str | None = None
    _key: object = None
    _parts: tuple[str, str] | None = None  # names of the trunk and the head
    _counted: tuple[list, list] | None = None  # what `summary` counts, while it runs

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.phase = self.add_weight(
            shape=(), initializer="zeros", dtype="int32", trainable=False, autocast=False,
            name="phase",
        )  # fmt: skip
        self.batches_seen = self.add_weight(
            shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False,
            name="batches_seen",
        )  # fmt: skip
        count = self.batches_seen
        # At 0, the trunk was called without this model, so the number of steps is unknown.
        follow_steps(
            self, lambda own: ops.where(count.value > 0, momentum_after(count.value, own), own)
        )
        self.seen = SeenData()

    def belong_to(
        self, pack: "PackNet", record: "TaskRecord", trunk: PackedTrunk, head: keras.Layer
    ) -> None:
        """Connects this model to a task of a pack.

        Args:
            pack: the pack.
            record: the task's record.
            trunk: the task's view of the trunk, a layer of this model.
            head: the task's output layers, a layer of this model.
        """
        self.pack, self.task_name, self._key = pack, record.name, record.key
        self._parts = (trunk.name, head.name)
        trunk.task_view.is_open = lambda: self.open

    def call(
        self, inputs: Tensors, training: bool | None = None, mask: Tensors = None, **kwargs: Any
    ) -> Tensors:
        if training:
            self.batches_seen.assign(self.batches_seen + 1.0)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def get_config(self) -> dict[str, Any]:
        with as_plain(self):
            return {**super().get_config(), "parts": self._parts}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> "TaskModel":
        config = dict(config)
        parts = config.pop("parts")
        model = super().from_config(config, custom_objects)
        model._parts = parts  # noqa: SLF001  of this class
        return model

    @property
    def trunk(self) -> PackedTrunk:
        """This task's view of the trunk."""
        return self.get_layer(self._part_names()[0])

    @property
    def head(self) -> keras.layers.Layer:
        """This task's output layers."""
        return self.get_layer(self._part_names()[1])

    def _part_names(self) -> tuple[str, str]:
        if self._parts is None:
            raise RuntimeError(
                f"This copy of '{self.name}', by keras.models.clone_model, belongs to no task, and "
                "what it would train is nobody's. Take net.unpack(task), a plain Keras model."
            )
        return self._parts

    @property
    def current_phase(self) -> Phase:
        """The value of `phase`."""
        return Phase(int(ops.convert_to_numpy(self.phase)))  # int() refuses mirrored variables

    @property
    def open(self) -> bool:
        """Whether the model may be trained: its task is open, or it belongs to no pack."""
        if self.pack is None:
            return True
        record = self.pack.state.open
        return record is not None and record.key is self._key

    def freeze(self) -> None:
        """Freezes the model, because its task is committed or discarded."""
        for part in _flagged(self.head):
            if not hasattr(part, GIVEN):
                setattr(part, GIVEN, part.trainable)
        self.trainable = False

    def flags(self) -> list[Callable[[], None]]:
        """Returns functions that undo `freeze`; call them in this order."""
        parts = [(part, part.trainable) for part in _flagged(self)]
        unmarked = [part for part in _flagged(self.head) if not hasattr(part, GIVEN)]
        return [
            *(functools.partial(setattr, part, "trainable", flag) for part, flag in parts),
            *(functools.partial(vars(part).pop, GIVEN, None) for part in unmarked),
        ]

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does; a `PackNetCallback` may be anywhere in `callbacks`.

        At the end it measures the moving statistics on the training data, so that they match the
        trained network. It keeps a reference to these data until the commit, which measures them
        again if the task has been pruned since; of a generator, the last batches.
        """
        if self.pack is not None and self.open:
            self.pack._check_layers("train")  # noqa: SLF001  its pack
        call = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs)
        if "callbacks" in call.arguments:
            call.arguments["callbacks"] = in_working_order(call.arguments["callbacks"])
        x, batch_size, steps = map(call.arguments.get, ("x", "batch_size", "steps_per_epoch"))
        held_out = call.arguments.get("validation_split")
        self.seen.remember_fit(_without_last(x, held_out) if held_out else x, batch_size, steps)
        if isinstance(x, types.GeneratorType):
            call.arguments["x"] = self.seen.watched(x)
        history = super().fit(*call.args[1:], **call.kwargs)
        if self.open:
            self.seen.update_statistics(self, self.steps_seen)
            self.seen.end_fit(self.steps_seen)
        return history

    @property
    def steps_seen(self) -> float:
        """The value of `batches_seen`."""
        return float(ops.convert_to_numpy(self.batches_seen))

    def statistics_measured(self) -> None:
        """Notes that the moving statistics have just been measured."""
        self.seen.measured(self.steps_seen)

    def train_on_batch(self, x: Tensors, *args: Any, **kwargs: Any) -> Any:
        self.seen.remember_batch(x)
        return super().train_on_batch(x, *args, **kwargs)

    def __call__(self, inputs: Tensors, *args: Any, **kwargs: Any) -> Tensors:
        self._refuse_removed()
        self._refreeze_shared()  # a trace keeps the mode in which normalisation ran
        if kwargs.get("training"):
            self.seen.remember_batch(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def make_test_function(self, force: bool = False) -> Callable | None:
        self._refuse_removed()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Callable | None:
        self._refuse_removed()
        return super().make_predict_function(force)

    def make_train_function(self, force: bool = False) -> Callable | None:
        self._part_names()  # refuses a clone
        self._refuse_unless_open("train")
        self._refreeze_shared()
        refuse_strange(self.optimizer, self)
        return super().make_train_function(force)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        self._refreeze_shared()
        return super().trainable_variables

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        if self._counted is not None:
            return self._counted[0]
        self._refreeze_shared()
        return super().trainable_weights

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        return super().non_trainable_weights if self._counted is None else self._counted[1]

    def count_params(self) -> int:
        return count_network_params(self) - len(self._own_state())

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints the layers and parameters as `keras.Model.summary` does.

        Parameters are those of the network that the task sees, as in a plain model of it. Of the
        packed weights, those that the task claims count as trainable. Variables that only the pack
        needs, such as owners, are not counted; see `PackNet.summary` for those.
        """
        self._counted = self._count_weights()
        try:
            super().summary(*args, **kwargs)
        finally:
            self._counted = None

    def _own_state(self) -> list[keras.Variable]:
        return [self.phase, self.batches_seen]

    def _count_weights(self) -> tuple[list, list]:
        """Returns trainable and other weights; claims and the rest of a kernel as two tensors."""
        claimed = {}
        for part in all_layers(self):
            for weight in part.packed_weights.values() if isinstance(part, Packed) else ():
                if weight.trainable is not None:
                    claimed[id(weight.trainable)] = weight.claimed()
        training = {id(variable) for variable in self.trainable_weights}
        state = {id(variable) for variable in self._own_state()}
        trainable, others = [], []
        for variable in network_weights(self):
            if id(variable) in state:
                continue
            size = math.prod(variable.shape)
            count = claimed.get(id(variable), size) if id(variable) in training else 0
            trainable.append(keras.KerasTensor((count,), variable.dtype))
            others.append(keras.KerasTensor((size - count,), variable.dtype))
        return trainable, others

    def _refreeze_shared(self) -> None:
        """Freezes shared weights again, in case the user set `trainable = True` on the trunk."""
        if self.pack is not None and self.open and len(self.pack.state.records) > 1:
            self.pack.policy.freeze_shared(self.trunk)

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        self._refuse_unless_open("set the weights of")
        if self.pack is not None:
            check_new_values(self, self.weights, weights)
        super().set_weights(weights)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        self._refuse_unless_open("load weights into")
        with self._keeping_committed():
            super().load_weights(*args, **kwargs)

    def set_state_tree(self, state_tree: dict) -> None:
        self._refuse_unless_open("set the state of")
        with self._keeping_committed():
            super().set_state_tree(state_tree)

    def _keeping_committed(self) -> contextlib.AbstractContextManager[None]:
        if self.pack is None:
            return contextlib.nullcontext()
        return self.trunk.keeping_committed(self.variables)

    def _refuse_removed(self) -> None:
        """Refuses to answer for a removed task.

        A traced function does not run `__call__` again, so the methods that return traced
        functions check too.
        """
        if self.pack is None or self.pack.state.holds(self._key):
            return
        if self.current_phase == Phase.COMMITTED:
            verb = "released"
            remedy = "Keep a plain copy, net.unpack(task), before net.release(task)"
        else:
            verb, remedy = "discarded", "Use the model that net.add_task returned last"
        raise RuntimeError(
            f"This model of task '{self.task_name}' cannot answer: the task was {verb}, and its "
            f"weights are free or another task's. {remedy}."
        )

    def _refuse_unless_open(self, action: str) -> None:
        if self.pack is None or self.open:
            return
        if not self.pack.state.holds(self._key):
            raise RuntimeError(
                f"Cannot {action} this model of task '{self.task_name}': the task was discarded. "
                "Use the model that net.add_task returned last, net.open_model."
            )
        raise RuntimeError(
            f"Cannot {action} the model of task '{self.task_name}': the task is committed, and a "
            "committed task never changes. Restore or load weights before net.commit() (a "
            "PackNetCallback commits when fit ends); to train on, add a task with net.add_task."
        )


@contextlib.contextmanager
def as_given(head: keras.Layer) -> Iterator[None]:
    """Makes a head trainable as the user made it, within the block, if a closed model froze it.

    Args:
        head: the layer that a user gave as a task's head.
    """
    parts = [(part, part.trainable) for part in _flagged(head)]
    closed = [part for part, _ in parts if hasattr(part, GIVEN)]
    try:
        if not any(part.trainable for part in closed):  # otherwise the user has reset the flags
            for part in closed:
                part.trainable = getattr(part, GIVEN)
        yield
    finally:
        for part, flag in parts:
            part.trainable = flag


def _without_last(x: Tensors, share: float) -> Tensors:
    """Returns arrays without the last examples, which `fit(validation_split=share)` holds out."""
    if not all(hasattr(array, "shape") for array in keras.tree.flatten(x)):
        return x  # `fit` refuses these

    def first(array: Any) -> Any:
        return array[: math.floor(len(array) * (1.0 - share))]

    return keras.tree.map_structure(first, x)


def _flagged(head: keras.Layer) -> list[keras.Layer | keras.Variable]:
    """Returns everything that has a `trainable` flag: layers, outer ones first, then weights."""
    return [*all_layers(head), *head.weights]
