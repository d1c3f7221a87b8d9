"""A pack as a value: its trunk, its policy and its tasks, without their Keras models."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import PackedWeight
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.tasks import checks
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.task_model import Phase


@dataclasses.dataclass(frozen=True)
class PackState:
    """What a pack holds. A verb of `PackNet` replaces it by another one; nobody changes it.

    What the numbers of weights are is in the variables of `trunk`.

    Attributes:
        trunk: the store; it holds the packed variables and is never called.
        policy: what tasks share, and what freed weights start from.
        weights: the packed weights of the trunk by path.
        records: the tasks in the order they were packed; the last may be open.
        notes: strings of the user's own.
    """

    trunk: PackedTrunk
    policy: Policy
    weights: Mapping[str, PackedWeight]
    records: tuple[TaskRecord, ...] = ()
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def committed(self) -> tuple[TaskRecord, ...]:
        """The records of the committed tasks."""
        return tuple(record for record in self.records if record.phase == Phase.COMMITTED)

    @property
    def open(self) -> TaskRecord | None:
        """The record of the task that is being trained."""
        last = self.records[-1] if self.records else None
        return None if last is None or last.phase == Phase.COMMITTED else last

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the committed tasks."""
        return tuple(record.name for record in self.committed)

    @property
    def base(self) -> str | None:
        """Name of the task that the pretrained trunk was adopted as."""
        return next((record.name for record in self.committed if record.adopted), None)

    def record(self, name: str) -> TaskRecord:
        """The record of a committed task.

        Args:
            name: of the task.

        Raises:
            ValueError: there is none of that name.
        """
        for record in self.committed:
            if record.name == name:
                return record
        known = ", ".join(map(repr, self.tasks)) or "none yet"
        is_open = self.open is not None and self.open.name == name
        hint = " It is still open: call net.commit() first." if is_open else ""
        raise ValueError(f"There is no committed task {name!r}.{hint} Committed tasks: {known}.")

    def need_open(self, verb: str) -> TaskRecord:
        """The record of the open task.

        Raises:
            RuntimeError: no task is open, so there is nothing to `verb`.
        """
        if self.open is None:
            raise RuntimeError(
                f"Nothing to {verb}: no task is open. Call net.add_task(name, head) first."
            )
        return self.open

    def holds(self, key: object) -> bool:
        """Whether a task is in the pack, open or committed.

        Args:
            key: of its record.
        """
        return any(record.key is key for record in self.records)

    def with_open(self, record: TaskRecord) -> "PackState":
        """The state with that record as the open task's, instead of the one it may have.

        Args:
            record: of the open task.
        """
        return dataclasses.replace(self, records=(*self.committed, record))

    def with_committed(self, name: str, **changes: Any) -> "PackState":
        """The state with other values in the record of a committed task.

        Args:
            name: of the task.
            changes: values of fields of `TaskRecord`, by name.
        """
        changed = dataclasses.replace(self.record(name), **changes)
        records = [changed if record.name == name else record for record in self.records]
        return dataclasses.replace(self, records=tuple(records))

    def without_last(self) -> "PackState":
        """The state without its last task, open or committed."""
        return dataclasses.replace(self, records=self.records[:-1])

    # -- Numbers ---------------------------------------------------------------------------------

    def capacity(self) -> Capacity:
        """Who owns how much, per layer."""
        layers = {}
        for path, weight in self.weights.items():
            free, *owned = weight.owner_counts(len(self.committed))
            layers[path] = {
                "total": free + sum(owned),
                "free": free,
                "claimed": weight.claimed(),
                "owned": dict(zip(self.tasks, owned, strict=True)),
            }
        return Capacity(layers, self.tasks)

    def missing_to(self, sparsity: float) -> int:
        """How many weights pruning to that sparsity would release.

        Args:
            sparsity: as for `PackNet.prune_to`.
        """
        ratio = self.need_open("prune").claim_ratio
        return sum(weight.missing_to(sparsity, ratio) for weight in self.weights.values())

    def claimed_share(self) -> tuple[float, float]:
        """Of the open task: the share of all packed weights it claims, and its sparsity.

        The sparsity is the share of the weights it began with that pruning has released.
        """
        record = self.need_open("report")
        weights = self.weights.values()
        total = sum(math.prod(weight.owner.shape) for weight in weights)
        claimed = sum(weight.claimed() for weight in weights)
        began = sum(weight.began(record.claim_ratio) for weight in weights)
        return claimed / total, 1.0 - claimed / max(began, 1)

    # -- Checks ----------------------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """Refuses a name that `add_task` would refuse, and any while a task is open.

        Args:
            name: what a user gave as one.

        Raises:
            ValueError: the name is taken or cannot be used.
            RuntimeError: another task is not committed yet.
        """
        self.check_none_open(name)
        checks.check_name(name, self.tasks)

    def check_none_open(self, name: str) -> None:
        """Refuses to add the task `name` while another one is not committed yet.

        Raises:
            RuntimeError: one is open.
        """
        if self.open is not None:
            raise RuntimeError(
                f"Cannot add task '{name}': task '{self.open.name}' is not committed yet "
                f"({self.open.phase.name.lower()}). Finish it with net.prune(ratio) and "
                "net.commit(), or drop it with net.discard()."
            )

    def check_owners(self) -> None:
        """Refuses owners that someone has rolled back to before a commit.

        Raises:
            RuntimeError: they are not what the records of the committed tasks say.
        """
        checks.check_owners(self.weights, self.committed)

    def has_weights_of(self, other: "PackState") -> bool:
        """Whether the tasks of another state own the same weights here, of the same values.

        Later tasks may own here what is free there.

        Args:
            other: the other state, of a pack of any trunk.
        """
        ours, theirs = (
            {path: tuple(weight.packed.shape) for path, weight in state.weights.items()}
            for state in (self, other)
        )
        return ours == theirs and all(
            weight.owns_the_same(other.weights[path], len(other.committed))
            for path, weight in self.weights.items()
        )

    def unpacked_variables(self) -> list[keras.Variable]:
        """The weights of the trunk that are not packed, in the order of its structure."""
        return [variable for _, variable in own_weights(self.trunk)]
