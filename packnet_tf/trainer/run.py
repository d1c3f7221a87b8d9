"""The directory of a run: finished tasks, and the state from which to resume."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from packnet_tf.backend.distribution import has_workers, strategy_of, wait_for_others
from packnet_tf.backend.json_files import as_json, read_json, write_json
from packnet_tf.backend.text import listed, quoted
from packnet_tf.backend.types import AnyPath
from packnet_tf.backend.writers import is_current, locked
from packnet_tf.net import PackNet
from packnet_tf.reporting.history import History
from packnet_tf.tasks.stored_pack import OtherPack
from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.tasks.transaction import Transaction
from packnet_tf.training import checkpoint
from packnet_tf.training.phases import Phases

PACK = "pack.keras"  # in the run's directory, like HISTORY
HISTORY = "history.json"


class ChangedSetting(ValueError):
    """A run or its unfinished task goes on with another setting than it was begun with.

    Args:
        directory: the run's directory.
        name: the setting's name.
        before, now: the setting's values.
        task: name of the task that began with the old value; None: the whole run did.

    Attributes:
        name, before, now, task: the arguments.
    """

    def __init__(
        self, directory: AnyPath, name: str, before: Any, now: Any, task: str | None = None
    ) -> None:
        self.name, self.before, self.now, self.task = name, before, now, task
        if task is None:
            what, where, unit = "The run", f"'{directory}'", "the run"
        else:
            what = f"The interrupted run of task '{task}'"
            where, unit = "'checkpoint.npz'", "the task"
        super().__init__(
            f"{what} in '{directory}' had {name}={quoted(repr(before))}, this one has "
            f"{name}={quoted(repr(now))}. Repeat the old settings to continue it, delete {where} "
            f"to start {unit} again, or take a new directory."
        )


class Run:
    """Saves the pack, the unfinished task and the history.

    It writes `pack.keras` before the first step and after every commit, and `checkpoint.npz` after
    every epoch. A commit writes the history, then the pack, then removes the checkpoint. A run that
    is killed in between resumes with the old pack and the checkpoint, and commits again.

    Args:
        directory: where to save; None: nothing is saved.
        writes: False on workers that are not the chief; they only read.
    """

    def __init__(self, directory: AnyPath | None, writes: bool) -> None:
        self.directory = pathlib.Path(directory) if directory is not None else None
        self._writes = writes and directory is not None
        self.history = History()
        self._restored: tuple[str, ...] = ()
        self._began: list[str] | None = None  # the tasks that the pack had; None: not known
        self._places: dict[str, int] = {}  # see `place`

    def alone(self) -> contextlib.AbstractContextManager:
        """Keeps other runs out of the directory.

        Raises:
            BlockingIOError: another process works in it.
        """
        if not self._writes:
            return contextlib.nullcontext()
        self._folder.mkdir(parents=True, exist_ok=True)
        return locked(self._pack)

    def open(
        self,
        net: PackNet,
        settings: dict[str, Any],
        given: dict[str, Any],
        prunes: Mapping[str, list] | None = None,
    ) -> None:
        """Restores into `net` the tasks that an earlier run has packed.

        Args:
            net: the pack.
            settings: settings that must not change within a task.
            given: settings that must not change within the run.
            prunes: by task, the values of its setting `prune` that continue it; None: any.

        Raises:
            OtherPack: the directory belongs to another pack, or the pack has changed since the run
                began.
            ValueError: a file of the directory is damaged.
            ChangedSetting: the run began with other settings.
        """
        self._settings = settings
        if self.directory is None:
            return
        before = read_json(self._given)
        for name, value in before.items():
            if name in given and given[name] != value:
                raise ChangedSetting(self.directory, name, value, given[name])
        self._read_beginning()
        found = self._pack.exists()
        # All workers must find the same files, so the chief writes after all have looked.
        wait_for_others(strategy_of(net))
        if found:
            self.history = History.read(self._history)
        # With several workers, all read the file.
        if found and (has_workers(strategy_of(net)) or not is_current(net, self._pack)):
            known = len(net.tasks)
            self._restore_pack(net)
            self._restored += net.tasks[known:]
        else:  # a new pack, or one that changed after it was saved
            if not found:
                self._began = list(net.tasks)
            elif self._began is not None:  # without those that were released within the run
                self._began = [task for task in self._began if task in net.tasks]
            self._note_beginning()
            if self._writes:
                net.save(self._pack)
        if self._writes and given:
            write_json(self._given, {**before, **given})
        if self._checkpoint.exists():
            facts, _ = checkpoint.load(self._checkpoint)
            if facts["task"] not in net.tasks:
                self._check_settings(facts["task"], facts["settings"], settings, prunes or {})

    def _restore_pack(self, net: PackNet) -> None:
        """Restores the pack that the run has kept, but no task that was released since it began.

        Raises:
            OtherPack: the pack lacks such a task, or is another one.
        """
        if any(task not in net.tasks for task in self._began or ()):
            raise self._changed(net)
        try:
            net.restore(self._pack)
        except OtherPack as error:
            if self._began is None:  # version 0.2.0 noted nothing
                raise
            raise self._changed(net) from error

    def _changed(self, net: PackNet) -> OtherPack:
        then, now = listed(self._began or ()), listed(net.tasks) or "none"
        what = f"it had {f'the tasks {then}' if then else 'no tasks'} then, and has {now} now"
        if self._began == list(net.tasks):
            what = f"it has the same tasks ({now}), but other weights, trunk or policy"
        return OtherPack(
            f"The pack has changed since the run in '{self.directory}' began: {what}",
            f"Pass the pack as it was, a copy of which is '{self._pack}', to continue the run; "
            f"delete '{self.directory}' to start it again, or take a new directory.",
        )

    def _read_beginning(self) -> None:
        found = read_json(self._beginning)
        began, places = found.get("tasks"), found.get("places", {})
        placed = isinstance(places, dict) and all(type(x) is int for x in places.values())
        if not (placed and isinstance(began, list | None)):
            raise ValueError(
                f"'{self._beginning}' is damaged: it does not say what the run began with. Restore "
                "it from a backup, or delete it: the run then goes on with any tasks of its pack."
            )
        self._began, self._places = began, places

    def _note_beginning(self) -> None:
        if self._writes:
            write_json(self._beginning, {"tasks": self._began, "places": self._places})

    def place(self, task: str, net: PackNet) -> int:
        """Returns how many tasks a pack had before the preparation of a task, for its seed.

        What the preparation has packed itself, such as a base, does not count when an interrupted
        run repeats it.

        Args:
            task: the task's name.
            net: the pack.
        """
        return self._places.get(task, len(net.tasks))

    def keep_prepared(self, task: str, place: int, net: PackNet) -> None:
        """Saves the pack after the preparation of a task has packed something.

        Args:
            task: the task's name.
            place: its `place` before.
            net: the pack.
        """
        self._places = {**self._places, task: place}
        self._note_beginning()
        self.keep(net)

    def _forget_place(self, task: str) -> None:
        if self._places.pop(task, None) is not None:
            self._note_beginning()

    def _check_settings(
        self, task: str, before: dict, settings: dict[str, Any], prunes: Mapping[str, list]
    ) -> None:
        accepted = {name: [value] for name, value in settings.items()}
        if task in prunes:
            accepted["prune"] = prunes[task]
        for name, values in accepted.items():
            if before[name] not in values:
                raise ChangedSetting(self._folder, name, before[name], values[0], task)

    def has_packed(self, task: str, net: PackNet) -> bool:
        """Returns whether this run, or an earlier one in its directory, has packed a task.

        Args:
            task: the task's name.
            net: the pack.
        """
        # If the history was lost, the tasks restored from the pack still count.
        return task in net.tasks and (task in self.history or task in self._restored)

    def memory(self, task: str) -> dict:
        """Returns what an interrupted run has saved from a task's preparation.

        Args:
            task: the task's name.
        """
        return {} if self.directory is None else read_json(self._memory).get(task, {})

    def remember(self, task: str, memory: dict) -> None:
        """Saves results of a task's preparation.

        Args:
            task: the task's name.
            memory: JSON values by name.

        Raises:
            ValueError: a value is no JSON value.
        """
        memory = as_json(memory, f"What the preparation of task '{task}' has put into its memory")
        if self._writes and memory:
            write_json(self._memory, {**read_json(self._memory), task: memory})

    def start_again(self, task: str, memory: dict) -> None:
        """Drops the progress of a task that is to be packed in another way.

        Args:
            task: the task's name.
            memory: JSON values by name, in place of what its preparation has put there.
        """
        if self._writes:
            self._checkpoint.unlink(missing_ok=True)  # first: it does not fit what is prepared then
            write_json(self._memory, {**read_json(self._memory), task: memory})
        self._forget_place(task)  # the next preparation finds what this one has packed

    def keep(self, net: PackNet) -> None:
        """Saves the pack.

        Args:
            net: the pack.
        """
        if self._writes:
            net.save(self._pack)

    def resume(
        self, task: str, model: TaskModel, phases: Phases, plan: dict[str, Any]
    ) -> dict | None:
        """Restores an unfinished task from its checkpoint.

        Args:
            task: the task's name.
            model: the task's compiled model; it gets the saved values.
            phases: the task's phases; they get their saved state.
            plan: settings of the task that must not change within it.

        Returns:
            The task's history entry so far; None if there is no checkpoint of the task.

        Raises:
            ValueError: the checkpoint is damaged, or belongs to another model or version.
            ChangedSetting: the task began with another plan.
        """
        if self.directory is None or not self._checkpoint.exists():
            return None
        facts, values = checkpoint.load(self._checkpoint)
        if facts["task"] != task:
            return None
        for name in ("epochs", "retrain_epochs"):  # `open` compares `prune`
            before = facts.get("plan", plan)[name]  # version 0.2.0 wrote none
            if before != plan[name]:
                raise ChangedSetting(self._folder, name, before, plan[name], task)
        count = facts["variables"]
        shapes = [tuple(variable.shape) for variable in checkpoint.variables_of(model)]
        if shapes != [value.shape for value in values[:count]]:
            raise ValueError(
                f"'{self._checkpoint}' belongs to another model of task '{task}': its head or its "
                "optimizer has changed since. Repeat the script as it was to continue, or delete "
                "the file to start the task again."
            )
        with Transaction(phases.net):
            checkpoint.put_back(model, values[:count])
            self._restore(phases, facts["phases"], values[count:])
        return facts["entry"]

    def _restore(self, phases: Phases, state: dict, arrays: list[np.ndarray]) -> None:
        task, pack = phases.task, phases.net.state
        changed = pack.changed_part(pack.present_digests()) if pack.committed else None
        if changed is not None:
            raise ValueError(
                f"'{self._checkpoint}' is damaged: it would change {changed}. Delete it: task "
                f"'{task}' then starts again."
            )
        try:
            phases.restore(state, arrays)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"'{self._checkpoint}' has another state of the phases of task '{task}' than this "
                f"version writes ({quoted(repr(error))}). Continue with the version that began the "
                "task, or delete the file to start the task again."
            ) from error

    def checkpoint(
        self, task: str, model: TaskModel, phases: Phases, entry: dict, plan: dict[str, Any]
    ) -> None:
        """Saves the state of an unfinished task after an epoch.

        Args:
            task: the task's name.
            model: the task's compiled model.
            phases: the task's phases.
            entry: the task's history entry so far.
            plan: as for `resume`.
        """
        if self._writes:
            values = checkpoint.take(model)
            facts = {
                "task": task,
                "settings": {**self._settings, "prune": plan["prune"]},
                "plan": plan,
                "entry": entry,
                "phases": phases.state(),
                "variables": len(values),  # further arrays belong to the phases
            }
            checkpoint.save(self._checkpoint, facts, [*values, *phases.arrays()])

    def commit(self, task: str, net: PackNet, entry: dict) -> None:
        """Saves a committed task.

        Args:
            task: the task's name.
            net: the pack.
            entry: the task's history entry.
        """
        self.history[task] = entry
        if self._writes:
            self.history.write(self._history)
            self.keep(net)
            self._checkpoint.unlink(missing_ok=True)
        self._forget_place(task)

    @property
    def logs(self) -> pathlib.Path | None:
        """Folder for the measurements of each task; None if the run has no directory."""
        return None if self.directory is None else self.directory / "logs"

    @property
    def _folder(self) -> pathlib.Path:
        if self.directory is None:
            raise ValueError("The run has no directory, so it has no files.")
        return self.directory

    @property
    def _pack(self) -> pathlib.Path:
        return self._folder / PACK

    @property
    def _checkpoint(self) -> pathlib.Path:
        return self._folder / "checkpoint.npz"

    @property
    def _history(self) -> pathlib.Path:
        return self._folder / HISTORY

    @property
    def _given(self) -> pathlib.Path:
        return self._folder / "settings.json"

    @property
    def _beginning(self) -> pathlib.Path:
        return self._folder / "begun.json"

    @property
    def _memory(self) -> pathlib.Path:
        return self._folder / "prepared.json"
