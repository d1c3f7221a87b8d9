"""`Pack`: the part of `PackNet` that reads a pack and never changes it."""

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.distribution import scope_of, strategy_of
from packnet_tf.backend.keras_internals import at_most
from packnet_tf.backend.text import shortened
from packnet_tf.normalization.following import fix_statistics
from packnet_tf.packing import cloning
from packnet_tf.packing.policy import Policy
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.storage_use import storage_use
from packnet_tf.reporting.summary import summarize
from packnet_tf.reporting.tables import html_table
from packnet_tf.tasks.checks import check_statistics
from packnet_tf.tasks.integrity.changes import check_layers
from packnet_tf.tasks.integrity.names import model_name
from packnet_tf.tasks.records import TaskRecord
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.task_model import TaskModel

MOMENTS = ("linear_head", "before_prune", "retrained", "test")  # of a task's results, in a table


class Pack:
    """Read access to a pack; `PackNet` adds the verbs that change it.

    Attributes:
        state: the pack's contents, to read. The verbs, adoption and the phases of training replace
            it by another one.
    """

    state: PackState
    _open_model: TaskModel | None

    def __repr__(self) -> str:
        state = self.state
        tasks = f"tasks {shortened(', '.join(state.tasks), 200)}" if state.tasks else "no tasks yet"
        if state.open is not None:
            tasks += f"; task {state.open.name} open ({state.open.phase.name.lower()})"
        return f"<PackNet of trunk '{state.trunk.name}': {tasks}>"

    def _repr_html_(self) -> str:
        whole, measured = self.capacity().sum(), [self.results(name) for name in self.tasks]
        moments = [m for m in MOMENTS if any(m in results for results in measured)]
        rows = []
        for name, results in zip(self.tasks, measured, strict=True):
            accuracies = [f"{results[m]:.1%}" if m in results else "-" for m in moments]
            classes = self.classes(name)
            extra = whole.get("overlaid", {}).get(name)
            count, sign = (whole["owned"][name], "") if extra is None else (extra, "+")
            owned = f"{sign}{count / whole['total']:.1%}"
            rows.append([name, str(len(classes)) if classes else "-", *accuracies, owned])
        rows.append(["free", "", *("" for _ in moments), f"{whole['free'] / whole['total']:.1%}"])
        head = ["task", "classes", *(m.replace("_", " ") for m in moments), "packed weights"]
        return html_table(head, rows, total=1, remarks=[repr(self)])

    @property
    def open_model(self) -> TaskModel | None:
        """The model of the open task; None if every task is committed."""
        return self._open_model

    @functools.cached_property
    def _discarded(self) -> "weakref.WeakSet[TaskModel]":
        """The models of discarded tasks that somebody holds."""
        return weakref.WeakSet()

    @property
    def policy(self) -> Policy:
        """The pack's policy: what tasks share, and where freed weights restart."""
        return self.state.policy

    @property
    def notes(self) -> dict[str, str]:
        """The user's own strings, saved with the pack and written into exported files."""
        return self.state.notes

    @notes.setter
    def notes(self, value: Mapping[str, str]) -> None:
        if not isinstance(value, Mapping) or not all(
            isinstance(text, str) for pair in value.items() for text in pair
        ):
            raise ValueError(
                f"The notes of a pack are a dict of strings; got {value!r}. Write "
                'net.notes = {"source": "..."}, or net.notes["source"] = "...".'
            )
        self.state = dataclasses.replace(self.state, notes=dict(value))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the committed tasks, in the order they were packed."""
        return self.state.tasks

    @property
    def base(self) -> str | None:
        """Name of the adopted task, the pretrained trunk; None if there is none."""
        return self.state.base

    def classes(self, name: str) -> list[str] | None:
        """Returns the class names of a committed task in output order.

        Args:
            name: the task's name.

        Returns:
            The names; None if `add_task` was not given any.

        Raises:
            ValueError: there is no committed task of that name.

        Example:
            >>> names = net.classes("birds")
        """
        return self.state.record(name).classes

    def reused(self, name: str) -> tuple[str, ...]:
        """Returns the names of the earlier tasks whose weights a committed task sees.

        Args:
            name: the task's name.

        Returns:
            The names in the order of packing; `add_task(reuse=...)` selected them.

        Raises:
            ValueError: there is no committed task of that name.

        Example:
            >>> net.reused("birds")
            ()
        """
        owning = self.state.owning
        return tuple(owning[number - 1].name for number in self.state.record(name).sees[:-1])

    def results(self, name: str) -> dict[str, float]:
        """Returns the measured accuracies of a committed task, 0 to 1.

        `PackTrainer` and `packnet train` record them. On validation data: `linear_head` (of a
        converged head on the frozen trunk), `before_prune`, `after_prune`, `retrained`, and
        `chance` (the share of the most frequent class). On test data: `test`.
        `packnet_tf.shortfalls` judges them.

        Args:
            name: the task's name.

        Returns:
            A dict from name to accuracy, with those that were measured.

        Raises:
            ValueError: there is no committed task of that name.

        Example:
            >>> accuracy = net.results("birds").get("test")
        """
        return dict(self.state.record(name).results)

    def metadata(self, name: str) -> dict[str, Any]:
        """Returns facts about a committed task: JSON values by name.

        `committed` is the time of the commit in UTC, as ISO 8601. `Task(metadata=...)` and
        `note_metadata` add others. `packnet train` adds `data` (its folder of images), `images`
        (their number by split), `image_size` (height and width in pixels), `pixel_range`,
        `epochs`, and `validation_share` and `seed`, which choose images to validate on if there is
        no folder of them.

        Args:
            name: the task's name.

        Raises:
            ValueError: there is no committed task of that name.

        Example:
            >>> day = net.metadata("birds")["committed"][:10]
        """
        return dict(self.state.record(name).metadata)

    def task_model(self, name: str) -> TaskModel:
        """Returns the frozen Keras model of a committed task, or the model of the open task.

        Several models may be held and called in turn: each answers as its own task, on the same
        packed variables. Calling a model never changes the pack.

        Args:
            name: the task's name.

        Raises:
            ValueError: there is no such task.

        Example:
            >>> predictions = net.task_model("birds").predict(images)
        """
        if self.open_model is not None and self.open_model.task_name == name:
            return self.open_model
        record = self.state.record(name)
        model = self._view(record)
        model.freeze()
        record.key.models.add(model)
        return model

    def unpack(self, name: str) -> keras.Model:
        """Returns a committed task as a plain Keras model, with masked kernels and no packed layer.

        Args:
            name: the task's name.

        Raises:
            ValueError: there is no committed task of that name.

        Example:
            >>> plain = net.unpack("birds")
            >>> plain.save("birds.keras")
        """
        view = self._view(self.state.record(name))
        model, _ = cloning.attach(
            cloning.plain_trunk(self.state.trunk, view.trunk), view.head, view.name, keras.Model
        )
        return model

    def capacity(self) -> Capacity:
        """Returns the numbers of owned and free weights per layer; prints as a table.

        Example:
            >>> print(net.capacity())
        """
        return self.state.capacity()

    def owners(self) -> dict[str, np.ndarray]:
        """Returns the owners of each packed weight by path.

        Returns:
            Dict from path to an integer array of the weight's shape: the number of the task that
            owns each weight, 0 = free. Tasks that own weights are numbered from 1, in the order
            they were packed; tasks with overlays have no number.

        Example:
            >>> shares = {path: (owner == 1).mean() for path, owner in net.owners().items()}
        """
        return {
            path: keras.ops.convert_to_numpy(weight.owner)
            for path, weight in self.state.weights.items()
        }

    def storage(self) -> dict:
        """Counts the bytes of the pack's stored values and of separate networks.

        Returns:
            A dict of bytes: `packed`, `owners`, `trunk` (its unpacked weights), `tasks` (dict from
            task name to the bytes of its own values, overlay and head), `one_network` (a plain
            trunk with the first task's head), `separate_networks` (a plain network per task).

        Example:
            >>> packed_bytes = net.storage()["packed"]
        """
        weights = self.state.weights.values()
        return storage_use(
            [weight.packed for weight in weights],
            [weight.owner for weight in weights],
            self.state.unpacked_variables(),
            {
                task.name: (
                    len(task.values) - task.head_bytes + len(task.overlaid),
                    task.head_bytes,
                )
                for task in self.state.committed
            },
        )

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Prints how each layer's parameters are stored: packed, shared, per task, or in a head.

        The parameters of overlays are in a column of their own.

        Args:
            print_fn: function that prints the text.

        Example:
            >>> net.summary()
        """
        heads = {record.name: record.head_size for record in self.state.committed}
        if self.open_model is not None:
            heads[self.state.need_open("report").name] = self.open_model.head.count_params()
        overlays = {
            record.name: sum(record.owned) for record in self.state.committed if not record.owns
        }
        print_fn(summarize(self.state.trunk, self.policy, heads, overlays))

    def preview(
        self, statistics: str = "task", reuse: str | Sequence[str] = "all", free: bool = True
    ) -> keras.Model:
        """Returns the trunk as the next task would see it; no task is added.

        Under `restart="fresh"`, free weights show their present values; `add_task` will sample new
        ones.

        Args:
            statistics: as for `add_task`.
            reuse: as for `add_task`.
            free: whether free weights show their restart values; False shows them as 0, as for a
                task that claims none.

        Returns:
            A model from the trunk's inputs to its features, for inference only.

        Raises:
            ValueError: `statistics` or `reuse` is invalid.

        Example:
            >>> features = net.preview().predict(images)
        """
        check_statistics(statistics)
        sees = self.state.seen_by_next(reuse)[:-1]
        trunk = cloning.view_trunk(self.state.trunk, (0, *sees) if free else sees, frozen=True)
        self._freeze_inherited(trunk, statistics, share=bool(self.tasks))
        return trunk

    def _open(self, verb: str) -> tuple[TaskRecord, TaskModel]:
        """Returns the record and the model of the open task.

        Args:
            verb: what the caller wants to do, for messages.

        Raises:
            RuntimeError: no task is open.
        """
        record, model = self.state.need_open(verb), self._open_model
        assert model is not None  # every open record has its model
        return record, model

    def _view(self, record: TaskRecord) -> TaskModel:
        """Builds a committed task's model; it has no trainable kernel but is not frozen yet."""
        self.state.check_owners()
        model = self._build(record, frozen=True)
        record.assign_to(model)
        return model

    def _build(
        self, record: TaskRecord, head: keras.layers.Layer | None = None, frozen: bool = False
    ) -> TaskModel:
        with scope_of(strategy_of(self)):
            return self._built(record, head, frozen)

    def _built(
        self, record: TaskRecord, head: keras.layers.Layer | None, frozen: bool
    ) -> TaskModel:
        trunk = cloning.view_trunk(self.state.trunk, record.sees, frozen)
        self._freeze_inherited(trunk, record.statistics, share=record.number > 1 and not frozen)
        # Only a head of a file needs the limit: that of a new task is the user's own.
        limit = at_most(record.head_bytes, f"The head of task '{record.name}'")
        with contextlib.nullcontext() if head else limit:
            model, own_head = cloning.attach(
                trunk, head or record.head.layer, model_name(record.name), TaskModel
            )
        # `self` is a PackNet, the one class of packs there is.
        model.belong_to(self, record, trunk, own_head)  # type: ignore[arg-type]
        return model

    def _check_layers(self, verb: str) -> None:
        """Refuses an open task whose layers were changed so that it would answer otherwise.

        Args:
            verb: what the caller wants to do, for the message.

        Raises:
            RuntimeError: they were, or no task is open.
        """
        record, model = self._open(verb)

        def again() -> TaskModel:
            kept = record.kept(model)
            copy = self._build(kept)
            kept.assign_to(copy)
            return copy

        check_layers(record, model, again, verb)

    def _freeze_inherited(self, trunk: keras.Model, statistics: str, share: bool) -> None:
        """Freezes statistics of the trunk, and with `share` the weights of earlier tasks."""
        if share:
            self.policy.freeze_shared(trunk)
        if statistics == "trunk":
            fix_statistics(trunk)
