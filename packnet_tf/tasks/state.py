"""`PackState`: a pack's trunk, policy and tasks as an immutable value."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.optimizers import gradient_sizes
from packnet_tf.backend.text import listed, quoted
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import (
    OVERLAY_NUMBER,
    Criterion,
    PackedWeight,
    choose_all,
    choose_places,
)
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.tasks import checks
from packnet_tf.tasks.integrity.digests import (
    Digests,
    changed_part,
    present_digests,
)
from packnet_tf.tasks.overlays import check_claimed, check_overlay
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.tasks.task_model import Phase, TaskModel


@dataclasses.dataclass(frozen=True)
class PackState:
    """The contents of a pack, without Keras models of tasks. Verbs of `PackNet` replace it.

    The values of weights are in the variables of `trunk`.

    Attributes:
        trunk: the store; it holds the packed variables and is never called.
        policy: what tasks share, and where freed weights restart.
        weights: the packed weights by path, as the open task trains them: those of its model. If no
            task is open, those of the trunk.
        records: the tasks in the order they were packed; the last may be open.
        notes: the user's own strings.
        digests: of what committed tasks have in `trunk`.
    """

    trunk: PackedTrunk
    policy: Policy
    weights: Mapping[str, PackedWeight]
    records: tuple[TaskRecord, ...] = ()
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    digests: Digests = dataclasses.field(default_factory=Digests)

    @property
    def committed(self) -> tuple[TaskRecord, ...]:
        """The records of the committed tasks."""
        return tuple(record for record in self.records if record.phase == Phase.COMMITTED)

    @property
    def owning(self) -> tuple[TaskRecord, ...]:
        """The records of the committed tasks that own weights, in the order of their numbers."""
        return tuple(record for record in self.committed if record.owns)

    @property
    def overriding(self) -> tuple[TaskRecord, ...]:
        """The records of the committed tasks with overlays."""
        return tuple(record for record in self.committed if not record.owns)

    @property
    def open(self) -> TaskRecord | None:
        """The record of the open task; None if there is none."""
        last = self.records[-1] if self.records else None
        return None if last is None or last.phase == Phase.COMMITTED else last

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the committed tasks."""
        return tuple(record.name for record in self.committed)

    @property
    def base(self) -> str | None:
        """Name of the adopted task, the pretrained trunk; None if there is none."""
        return next((record.name for record in self.committed if record.adopted), None)

    def record(self, name: str) -> TaskRecord:
        """Returns the record of a committed task.

        Args:
            name: the task's name.

        Raises:
            ValueError: there is no committed task of that name.
        """
        for record in self.committed:
            if record.name == name:
                return record
        known = listed(self.tasks) or "none yet"
        is_open = self.open is not None and self.open.name == name
        hint = " It is still open: call net.commit() first." if is_open else ""
        raise ValueError(
            f"There is no committed task {quoted(repr(name))}.{hint} Committed tasks: {known}."
        )

    def need_open(self, verb: str) -> TaskRecord:
        """Returns the record of the open task.

        Args:
            verb: what the caller wants to do, for the message.

        Raises:
            RuntimeError: no task is open.
        """
        if self.open is None:
            raise RuntimeError(
                f"Nothing to {verb}: no task is open. Call net.add_task(name, head) first."
            )
        return self.open

    def holds(self, key: object) -> bool:
        """Returns whether a task is in the pack, open or committed.

        Args:
            key: the `key` of the task's record.
        """
        return any(record.key is key for record in self.records)

    def with_last(self, record: TaskRecord) -> "PackState":
        """Returns the state with the committed tasks and `record` after them.

        Args:
            record: the record of the task that is opened, trained or committed.
        """
        return dataclasses.replace(self, records=(*self.committed, record))

    def seen_by_next(
        self, reuse: str | Sequence[str], overlay: float | None = None
    ) -> tuple[int, ...]:
        """Returns the numbers of the tasks that a new task sees, its own last.

        Args:
            reuse, overlay: as for `PackNet.add_task`.

        Raises:
            ValueError: `reuse` is invalid.
        """
        owning = [record.name for record in self.owning]
        overriding = [record.name for record in self.overriding]
        numbers = seen_numbers(reuse, owning, overriding, self.base)
        return numbers if overlay is None else (*numbers[:-1], OVERLAY_NUMBER)

    def owners_among(self, first: int, last: int) -> range:
        """Returns the owner numbers of the tasks at some places in the order of packing.

        Args:
            first, last: 1-based places, both included.
        """
        until = [0, *itertools.accumulate(record.owns for record in self.committed)]
        return range(until[first - 1] + 1, until[last] + 1)

    def with_weights_of(self, trunk: PackedTrunk) -> "PackState":
        """Returns the state with the packed weights of the store or of the open task's view."""
        found = trunk.packed_weights().values()
        return dataclasses.replace(self, weights=dict(zip(self.weights, found, strict=True)))

    def with_committed(self, name: str, **changes: Any) -> "PackState":
        """Returns the state with changed fields in the record of a committed task.

        Args:
            name: the task's name.
            changes: new values of `TaskRecord` fields, by name.
        """
        changed = dataclasses.replace(self.record(name), **changes)
        records = [changed if record.name == name else record for record in self.records]
        return dataclasses.replace(self, records=tuple(records))

    def without(self, record: TaskRecord) -> "PackState":
        """Returns the state without a task, open or committed.

        Args:
            record: the task's record.
        """
        others = tuple(other for other in self.records if other is not record)
        return dataclasses.replace(self, records=others)

    # -- Numbers ---------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The number of packed weights."""
        return sum(math.prod(weight.owner.shape) for weight in self.weights.values())

    def capacity(self) -> Capacity:
        """Counts the owned, overlaid and free weights per layer."""
        layers = {}
        owning = [record.name for record in self.owning]
        for place, (path, weight) in enumerate(self.weights.items()):
            free, *owned = weight.owner_counts(len(owning))
            layers[path] = {
                "total": free + sum(owned),
                "free": free,
                "claimed": weight.claimed(),
                "owned": {**dict.fromkeys(self.tasks, 0), **dict(zip(owning, owned, strict=True))},
            }
            if self.overriding:
                layers[path]["overlaid"] = {
                    record.name: record.owned[place] for record in self.overriding
                }
        return Capacity(layers, self.tasks)

    def missing_to(self, sparsity: float) -> int:
        """Counts the weights that pruning to a sparsity would release.

        Args:
            sparsity: as for `PackNet.prune_to`, 0 to 1.
        """
        record, weights = self.need_open("prune"), self.weights.values()
        if not record.owns:  # the layers share the places
            claimed = sum(weight.claimed() for weight in weights)
            return max(0, claimed - (self.size - round(sparsity * self.size)))
        return sum(weight.missing_to(sparsity, record.claim_ratio) for weight in weights)

    def choose(
        self, target: Mapping[str, float] | float, criterion: Criterion, model: TaskModel
    ) -> dict[str, np.ndarray]:
        """Returns the weights that pruning the open task would release.

        Args:
            target: the prune ratio of each packed weight, by path; or the sparsity to prune to, see
                `PackNet.prune_to`.
            criterion: as for `PackNet.prune`.
            model: the open task's model.

        Returns:
            A bool array per path, of the weight's shape.

        Raises:
            ValueError: the criterion fails.
        """
        record = self.need_open("prune")
        if record.overlay is None:
            if not isinstance(target, Mapping):
                target = {
                    path: weight.share_to(target, record.claim_ratio)
                    for path, weight in self.weights.items()
                }
            return choose_all(self.weights, target, criterion)
        claimed = {path: weight.claimed() for path, weight in self.weights.items()}
        if isinstance(target, Mapping):
            wanted = round(sum(target[path] * count for path, count in claimed.items()))
        else:
            wanted = self.missing_to(target)
        excess = sum(claimed.values()) - round(record.overlay * self.size)
        trained = [weight.trained[0] for weight in self.weights.values()]
        sizes = gradient_sizes(model.optimizer if model.compiled else None, trained)
        return choose_places(self.weights, record.sees, max(wanted, excess, 0), criterion, sizes)

    def claimed(self) -> int:
        """Counts the weights that the open task claims."""
        return sum(weight.claimed() for weight in self.weights.values())

    def claimed_share(self) -> tuple[float, float]:
        """Returns the open task's share of all packed weights and its sparsity.

        Returns:
            The fraction of all packed weights that the task claims, and the fraction of its
            initial claim that pruning has released; both 0 to 1.
        """
        record, claimed = self.need_open("report"), self.claimed()
        began = sum(weight.began(record.claim_ratio) for weight in self.weights.values())
        return claimed / self.size, 1.0 - claimed / max(began, 1)

    # -- Checks ----------------------------------------------------------------------------------

    def check_name(self, name: str) -> None:
        """Refuses an invalid name for a new task, and any name while a task is open.

        Args:
            name: the user's value.

        Raises:
            ValueError: the name is taken or cannot be used.
            RuntimeError: another task is not committed yet.
        """
        self.check_none_open(name)
        checks.check_name(name, self.tasks)

    def check_none_open(self, name: str) -> None:
        """Refuses to add a task while another one is open.

        Args:
            name: the new task's name, for the message.

        Raises:
            RuntimeError: another task is not committed yet.
        """
        if self.open is not None:
            raise RuntimeError(
                f"Cannot add task '{name}': task '{self.open.name}' is not committed yet "
                f"({self.open.phase.name.lower()}). Finish it with net.prune(ratio) and "
                "net.commit(), or drop it with net.discard()."
            )

    def check_room(
        self, name: str, sees: Sequence[int], claim_ratio: float, overlay: float | None
    ) -> float | None:
        """Refuses a new task for which there are no weights; returns its overlay as a float.

        Args:
            name: the new task's name.
            sees: what `seen_by_next` returned.
            claim_ratio, overlay: as for `PackNet.add_task`.

        Raises:
            ValueError: no weight is free, or the overlay cannot be used.
        """
        if overlay is not None:
            return check_overlay(
                name, overlay, claim_ratio, sees[:-1], self.size, bool(self.owning)
            )
        checks.check_number(name, len(self.owning))
        checks.check_capacity(name, self.capacity(), self.base)
        return None

    def check_commit(self, model: TaskModel) -> None:
        """Refuses to commit the open task in a state that no training leads to.

        Args:
            model: its model.

        Raises:
            RuntimeError: weights of committed tasks were changed, or were restored from before a
                commit or from before the task's prune; or the task has an overlay and was not
                pruned.
        """
        self.check_unchanged("commit")
        record = self.need_open("commit")
        checks.check_not_rolled_back(record, model)
        if record.claims is not None and self.claimed() > record.claims:
            raise checks.rolled_back(record.name, partly=True)
        if record.overlay is not None:
            check_claimed(record.name, record.overlay, self.claimed(), self.size)

    def check_owners(self) -> None:
        """Refuses owners that were restored from before a commit.

        Raises:
            RuntimeError: the owners differ from the records of the committed tasks.
        """
        checks.check_owners(self.weights, self.owning)

    def check_unchanged(self, verb: str) -> None:
        """Refuses weights of committed tasks that something has changed since their commits.

        It warns of held models of the tasks whose own values have changed.

        Args:
            verb: what the caller wants to do, for the message.

        Raises:
            RuntimeError: the owners differ from the records, or the weights from the digests.
        """
        self.check_weights(verb)
        for record in self.committed:
            record.warn_of_changed_models(self.trunk)

    def check_weights(self, verb: str) -> None:
        """Does the same as `check_unchanged`, without a look at held models."""
        self.check_owners()
        changed = self.changed_part(self.present_digests()) if self.committed else None
        if changed is not None:
            raise RuntimeError(
                f"Cannot {verb}: {changed} have changed since the commit, by variable.assign or "
                "layer.set_weights for instance. Open the last saved pack with packnet_tf.load."
            )

    def changed_part(self, now: Digests) -> str | None:
        """Returns which committed weights differ from their digests; None if none do.

        Args:
            now: the digests of the present weights.
        """
        tasks = {task.name: (task.number, task.owned_digest) for task in self.owning}
        return changed_part(self.digests, now, self.weights, tasks)

    def present_digests(self) -> Digests:
        """Returns the digests of the present weights."""
        return present_digests(self.weights.values(), self.unpacked_variables())

    def with_digests(self) -> "PackState":
        """Returns the state with the digests of the present weights."""
        return dataclasses.replace(self, digests=self.present_digests())

    def unpacked_variables(self) -> list[keras.Variable]:
        """Returns the trunk's weights that are not packed, in the order of its structure."""
        return [variable for _, variable in own_weights(self.trunk)]
