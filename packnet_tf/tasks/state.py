"""What a pack holds, and what can be read off it: the models of its tasks, and numbers."""

import math
import weakref
from collections.abc import Callable

import keras
import numpy as np

from packnet_tf.normalization.statistics import fix_statistics
from packnet_tf.packing import cloning
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.storage_use import storage_use
from packnet_tf.reporting.summary import summarize
from packnet_tf.tasks import checks
from packnet_tf.tasks.names import model_name
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.task_model import COMMITTED, PHASES, TaskModel


class PackState:
    """The state of a `PackNet`: the store, the records of its tasks, the open one.

    Looking never changes anything: the verbs are in `PackNet`.

    Attributes:
        policy: how tasks treat weights that are not packed, and freed ones.
        notes: strings of the user's own.
    """

    def _setup(self, packed_trunk, policy: Policy) -> None:
        self.policy = policy
        self._trunk = packed_trunk
        self._weights = packed_trunk.packed_weights()
        self._records: list[TaskRecord] = []
        self._open: tuple[TaskRecord, TaskModel] | None = None
        self._was_pruned = False
        self._models: weakref.WeakSet[TaskModel] = weakref.WeakSet()
        self.notes: dict[str, str] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the committed tasks, in the order they were packed."""
        return tuple(record.name for record in self._records)

    @property
    def base(self) -> str | None:
        """Name of the task that the pretrained trunk was adopted as; None where it was not."""
        return self._records[0].name if self._records and self._records[0].adopted else None

    @property
    def open_model(self) -> TaskModel | None:
        """The model of the task being trained; None when every task is committed."""
        return self._open[1] if self._open else None

    def classes(self, name: str) -> list[str] | None:
        """Class names of a task in output order, where `add_task` was given them."""
        return self._record(name).classes

    def reused(self, name: str) -> tuple[str, ...]:
        """Names of the earlier tasks whose weights a committed task sees; see `add_task`.

        Raises:
            ValueError: there is no committed task of that name.
        """
        return tuple(self.tasks[number - 1] for number in self._record(name).sees[:-1])

    def results(self, name: str) -> dict[str, float]:
        """Accuracies of a committed task, 0 to 1, as far as they were measured.

        `PackTrainer` and `packnet train` note them: on validation data `linear_head` (a converged
        one on the frozen trunk), `before_prune`, `after_prune`, `retrained`, and `chance` (the
        share of the commonest class); on test data `test`. `packnet_tf.shortfalls` judges them.

        Raises:
            ValueError: there is no committed task of that name.
        """
        return dict(self._record(name).results)

    def task_model(self, name: str) -> TaskModel:
        """The frozen Keras model of a committed task; of the open task, the one it trains.

        Several may be held and called in turn: each answers as its own task, on the same packed
        variables. Looking never changes anything.

        Raises:
            ValueError: there is no such task.
        """
        if self._open and self._open[0].name == name:
            return self._open[1]
        model = self._view(self._record(name))
        model.phase.assign(COMMITTED)
        model.close()
        return model

    def unpack(self, name: str) -> keras.Model:
        """A plain Keras model of a committed task, masked values baked in, no packed layer left.

        Raises:
            ValueError: there is no committed task of that name.
        """
        view = self._view(self._record(name))
        model, _ = cloning.attach(
            cloning.plain_trunk(self._trunk, view.trunk), view.head, view.name
        )
        return model

    def capacity(self) -> Capacity:
        """Who owns how much, per layer; prints as a table."""
        layers = {}
        for path, weight in self._weights.items():
            free, *owned = weight.owner_counts(len(self._records))
            layers[path] = {
                "total": free + sum(owned),
                "free": free,
                "claimed": weight.claimed(),
                "owned": dict(zip(self.tasks, owned, strict=True)),
            }
        return Capacity(layers, self.tasks)

    def owners(self) -> dict[str, np.ndarray]:
        """The owner of every weight, an array per packed weight: 1 for the first task, 0 = free."""
        return {
            path: keras.ops.convert_to_numpy(weight.owner) for path, weight in self._weights.items()
        }

    def storage(self) -> dict:
        """Bytes of the pack's numbers by what they are for; see `usage.storage_use`."""
        weights = self._weights.values()
        return storage_use(
            [weight.packed for weight in weights],
            [weight.owner for weight in weights],
            [variable for _, variable in own_weights(self._trunk)],
            {
                task.name: (len(task.values) - task.head_bytes, task.head_bytes)
                for task in self._records
            },
        )

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Prints what becomes of the parameters of every layer: packed, shared, per task, head.

        Args:
            print_fn: takes the text instead of `print`.
        """
        heads = {record.name: record.head_size for record in self._records}
        if self._open:
            record, model = self._open
            heads[record.name] = model.head.count_params()
        print_fn(summarize(self._trunk, self.policy, heads))

    def missing_to(self, sparsity: float) -> int:
        """How many weights `prune_to(sparsity)` would release."""
        ratio = self._need_open("prune")[0].claim_ratio
        return sum(weight.missing_to(sparsity, ratio) for weight in self._weights.values())

    def claimed_share(self) -> tuple[float, float]:
        """Of the open task: the share of all packed weights it claims, and its sparsity.

        The sparsity is the share of the weights it began with that pruning has released.
        """
        record, _ = self._need_open("report")
        weights = self._weights.values()
        total = sum(math.prod(weight.owner.shape) for weight in weights)
        claimed = sum(weight.claimed() for weight in weights)
        began = sum(weight.began(record.claim_ratio) for weight in weights)
        return claimed / total, 1.0 - claimed / max(began, 1)

    def check_name(self, name: str) -> None:
        """Refuses a name that `add_task` would refuse, and any while a task is open.

        Raises:
            ValueError: the name is taken or cannot be used.
            RuntimeError: another task is not committed yet.
        """
        self.check_no_task_is_open(name)
        checks.check_name(name, self.tasks)

    def check_no_task_is_open(self, name: str) -> None:
        """Refuses to add the task `name` while another one is not committed yet.

        Raises:
            RuntimeError: one is open.
        """
        if self._open is not None:
            record, model = self._open
            phase = PHASES[model.current_phase]
            raise RuntimeError(
                f"Cannot add task '{name}': task '{record.name}' is not committed yet "
                f"({phase}). Finish it with net.prune(ratio) and net.commit(), or drop it with "
                "net.discard()."
            )

    def _view(self, record: TaskRecord) -> TaskModel:
        """A committed task's model, which has no trainable kernel but is not closed yet."""
        checks.check_owners(self._weights, self._records)
        model = self._build(record, frozen=True)
        record.assign_to(model)
        return model

    def _build(self, record: TaskRecord, head=None, frozen: bool = False) -> TaskModel:
        trunk = cloning.view_trunk(self._trunk, record.sees, frozen)
        if record.number > 1 and not frozen:
            self.policy.freeze_shared(trunk)
        model, own_head = cloning.attach(
            trunk, head or record.head.layer, model_name(record.name), TaskModel
        )
        model.belong(self, record.name, trunk, own_head)
        if record.statistics == "trunk":
            fix_statistics(trunk)
        self._models.add(model)
        return model

    def _record(self, name: str) -> TaskRecord:
        for record in self._records:
            if record.name == name:
                return record
        known = ", ".join(map(repr, self.tasks)) or "none yet"
        still_open = self._open is not None and self._open[0].name == name
        state = " It is still open: call net.commit() first." if still_open else ""
        raise ValueError(f"There is no committed task {name!r}.{state} Committed tasks: {known}.")

    def _need_open(self, verb: str) -> tuple[TaskRecord, TaskModel]:
        if self._open is None:
            raise RuntimeError(
                f"Nothing to {verb}: no task is open. Call net.add_task(name, head) first."
            )
        return self._open
