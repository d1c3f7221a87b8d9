"""What can be read off a pack: its tasks, their models, and numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from packnet_tf.normalization.statistics import fix_statistics
from packnet_tf.packing import cloning
from packnet_tf.packing.policy import Policy
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.storage_use import storage_use
from packnet_tf.reporting.summary import summarize
from packnet_tf.tasks.checks import check_statistics
from packnet_tf.tasks.names import model_name
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.task_model import TaskModel


class Pack:
    """A pack to look at; the verbs that change it are in `PackNet`.

    Attributes:
        state: what it holds; to be read, not changed.
        open_model: the model of the task being trained; None when every task is committed.
    """

    state: PackState
    open_model: TaskModel | None

    @property
    def policy(self) -> Policy:
        """What tasks share, and what freed weights start from."""
        return self.state.policy

    @property
    def notes(self) -> dict[str, str]:
        """Strings of your own, saved with the pack and written into exported files."""
        return self.state.notes

    @notes.setter
    def notes(self, value: Mapping[str, str]) -> None:
        self.state = dataclasses.replace(self.state, notes=dict(value))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the committed tasks, in the order they were packed."""
        return self.state.tasks

    @property
    def base(self) -> str | None:
        """Name of the task that the pretrained trunk was adopted as; None where it was not."""
        return self.state.base

    def classes(self, name: str) -> list[str] | None:
        """Class names of a task in output order, where `add_task` was given them.

        Args:
            name: of a committed task.

        Raises:
            ValueError: there is no committed task of that name.
        """
        return self.state.record(name).classes

    def reused(self, name: str) -> tuple[str, ...]:
        """Names of the earlier tasks whose weights a committed task sees; see `add_task`.

        Args:
            name: of the committed task.

        Raises:
            ValueError: there is no committed task of that name.
        """
        return tuple(self.tasks[number - 1] for number in self.state.record(name).sees[:-1])

    def results(self, name: str) -> dict[str, float]:
        """Accuracies of a committed task, 0 to 1, as far as they were measured.

        `PackTrainer` and `packnet train` note them: on validation data `linear_head` (a converged
        one on the frozen trunk), `before_prune`, `after_prune`, `retrained`, and `chance` (the
        share of the commonest class); on test data `test`. `packnet_tf.shortfalls` judges them.

        Args:
            name: of the committed task.

        Raises:
            ValueError: there is no committed task of that name.
        """
        return dict(self.state.record(name).results)

    def task_model(self, name: str) -> TaskModel:
        """The frozen Keras model of a committed task; of the open task, the one it trains.

        Several may be held and called in turn: each answers as its own task, on the same packed
        variables. Looking never changes anything.

        Args:
            name: of the task.

        Raises:
            ValueError: there is no such task.
        """
        if self.open_model is not None and self.open_model.task_name == name:
            return self.open_model
        model = self._view(self.state.record(name))
        model.freeze()
        return model

    def unpack(self, name: str) -> keras.Model:
        """A plain Keras model of a committed task, masked values baked in, no packed layer left.

        Args:
            name: of the committed task.

        Raises:
            ValueError: there is no committed task of that name.
        """
        view = self._view(self.state.record(name))
        model, _ = cloning.attach(
            cloning.plain_trunk(self.state.trunk, view.trunk), view.head, view.name, keras.Model
        )
        return model

    def capacity(self) -> Capacity:
        """Who owns how much, per layer; prints as a table."""
        return self.state.capacity()

    def owners(self) -> dict[str, np.ndarray]:
        """The owner of every weight, an array per packed weight: 1 for the first task, 0 = free."""
        return {
            path: keras.ops.convert_to_numpy(weight.owner)
            for path, weight in self.state.weights.items()
        }

    def storage(self) -> dict:
        """Bytes of the pack's numbers by what they are for; see `usage.storage_use`."""
        weights = self.state.weights.values()
        return storage_use(
            [weight.packed for weight in weights],
            [weight.owner for weight in weights],
            self.state.unpacked_variables(),
            {
                task.name: (len(task.values) - task.head_bytes, task.head_bytes)
                for task in self.state.committed
            },
        )

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Prints what becomes of the parameters of every layer: packed, shared, per task, head.

        Args:
            print_fn: takes the text instead of `print`.
        """
        heads = {record.name: record.head_size for record in self.state.committed}
        if self.open_model is not None:
            heads[self.state.need_open("report").name] = self.open_model.head.count_params()
        print_fn(summarize(self.state.trunk, self.policy, heads))

    def preview(
        self, statistics: str = "task", reuse: str | Sequence[str] = "all", free: bool = True
    ) -> keras.Model:
        """The trunk as the next task would see it when it is added; nothing is added.

        Under `restart="fresh"` free weights show what they hold now, and will be drawn anew.

        Args:
            statistics, reuse: as for `add_task`.
            free: whether free weights show what the task would start from; else they count as 0,
                as for a task that claims none.

        Returns:
            A model from the inputs of the trunk to its features, to look at and not to train.

        Raises:
            ValueError: `statistics` or `reuse` cannot be used.

        Example:
            >>> features = net.preview().predict(images)
        """
        check_statistics(statistics)
        sees = seen_numbers(reuse, self.tasks)[:-1]
        trunk = cloning.view_trunk(self.state.trunk, (0, *sees) if free else sees, frozen=True)
        self._hold(trunk, statistics, first=not self.tasks)
        return trunk

    def _view(self, record: TaskRecord) -> TaskModel:
        """A committed task's model, which has no trainable kernel but is not frozen yet."""
        self.state.check_owners()
        model = self._build(record, frozen=True)
        record.assign_to(model)
        return model

    def _build(
        self, record: TaskRecord, head: keras.layers.Layer | None = None, frozen: bool = False
    ) -> TaskModel:
        trunk = cloning.view_trunk(self.state.trunk, record.sees, frozen)
        self._hold(trunk, record.statistics, first=record.number == 1 or frozen)
        model, own_head = cloning.attach(
            trunk, head or record.head.layer, model_name(record.name), TaskModel
        )
        # Every pack is a PackNet.
        model.belong_to(self, record, trunk, own_head)  # type: ignore[arg-type]
        return model

    def _hold(self, trunk: keras.Model, statistics: str, first: bool) -> None:
        """Freezes what a task shares with earlier ones, and statistics that are the trunk's."""
        if not first:
            self.policy.freeze_shared(trunk)
        if statistics == "trunk":
            fix_statistics(trunk)
