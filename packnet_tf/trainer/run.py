"""The directory of a run: what is done, and what is needed to go on."""

import json
import pathlib
import weakref
from typing import Any

from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.distribution import has_workers, strategy_of, wait_for_others
from packnet_tf.backend.types import AnyPath
from packnet_tf.net import PackNet
from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.trainer import checkpoint
from packnet_tf.trainer.history import History
from packnet_tf.training.phases import Phases

PACK = "pack.keras"  # within the directory, as is the next one
HISTORY = "history.json"
# By pack, the file that it was kept in or read from last: what it holds may be newer than that.
_LATEST: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class ChangedSetting(ValueError):
    """An interrupted run is to be continued with another setting than it was begun with.

    Args:
        directory: of the run.
        name: of the setting.
        before, now: its values.
        task: name of the task that was begun with it; None: the run as a whole was.

    Attributes:
        name, before, now: the same.
    """

    def __init__(
        self, directory: AnyPath, name: str, before: Any, now: Any, task: str | None = None
    ) -> None:
        self.name, self.before, self.now = name, before, now
        of = "The interrupted run" if task is None else f"The interrupted run of task '{task}'"
        unit = "the run" if task is None else "the task"
        rest = f"'{directory}'" if task is None else "'checkpoint.npz'"
        super().__init__(
            f"{of} in '{directory}' had {name}={before!r}, this one has {name}={now!r}. Repeat the "
            f"old settings to continue it, delete {rest} to start {unit} again, or take a new "
            "directory."
        )


def _stamp(path: pathlib.Path) -> tuple:
    """Tells a file from what another process has put in its place."""
    found = path.stat()
    return (path.resolve(), found.st_mtime_ns, found.st_size)


class Run:
    """Keeps the pack, the unfinished task and the history.

    `pack.keras` is written before the first step and after every commit, `checkpoint.npz` after
    every epoch. A commit first writes the history, then the pack, then removes the checkpoint: a
    run killed in between finds the old pack and the checkpoint, and commits again.

    Args:
        directory: None keeps nothing.
        writes: False on workers that are not the chief; they read only.
    """

    def __init__(self, directory: AnyPath | None, writes: bool) -> None:
        self.directory = pathlib.Path(directory) if directory is not None else None
        self._writes = writes and directory is not None
        self.history = History()
        self._restored: tuple[str, ...] = ()

    def open(self, net: PackNet, settings: dict[str, Any], given: dict[str, Any]) -> None:
        """Puts into `net` what an earlier run has packed.

        Args:
            net: the pack.
            settings: that an unfinished task must be repeated with.
            given: that the whole run must be.

        Raises:
            ValueError: the directory is another pack's.
            ChangedSetting: it was begun with other settings.
        """
        self._settings = settings
        if self.directory is None:
            return
        given = json.loads(json.dumps(given))  # as they will be read back
        for name, value in self._read(self._given).items():
            if name in given and given[name] != value:
                raise ChangedSetting(self.directory, name, value, given[name])
        found = self._pack.exists()
        # All workers must find the same, so the chief does not write before all have looked.
        wait_for_others(strategy_of(net))
        if found:
            self.history = History.read(self._history)
        if found and _LATEST.get(net) != _stamp(self._pack):
            known = len(net.tasks)
            net.restore(self._pack)
            self._restored += net.tasks[known:]
        elif self._writes:  # new, or changed in this process since it was kept
            net.save(self._pack)
        self._note(net)
        if self._writes and given:
            self._put(self._given, given)
        if self._checkpoint.exists():
            facts, _ = checkpoint.load(self._checkpoint)
            for name, value in settings.items():
                if facts["task"] not in net.tasks and facts["settings"][name] != value:
                    raise ChangedSetting(
                        self.directory, name, facts["settings"][name], value, facts["task"]
                    )

    def has_packed(self, task: str, net: PackNet) -> bool:
        """Whether this run, or an earlier one in its directory, has packed a task.

        Args:
            task: its name.
            net: the pack.
        """
        # A history that was lost does not undo what is in the pack.
        return task in net.tasks and (task in self.history or task in self._restored)

    def memory(self, task: str) -> dict:
        """What the preparation of a task has found out, in a run that was interrupted.

        Args:
            task: its name.
        """
        return {} if self.directory is None else self._read(self._memory).get(task, {})

    def remember(self, task: str, memory: dict) -> None:
        """Keeps that.

        Args:
            task: its name.
            memory: what JSON can hold.
        """
        if self._writes and memory:
            self._put(self._memory, {**self._read(self._memory), task: memory})

    def keep(self, net: PackNet) -> None:
        """Keeps the pack as it is.

        Args:
            net: the pack.
        """
        if self._writes:
            net.save(self._pack)
            self._note(net)

    def resume(self, task: str, model: TaskModel, phases: Phases) -> dict | None:
        """Restores an unfinished task; returns its entry in the history so far, or None.

        Args:
            task: its name.
            model: its compiled model, which gets the values that were kept.
            phases: which go on from where they were.

        Raises:
            ValueError: the checkpoint is damaged, or of another model.
        """
        if self.directory is None or not self._checkpoint.exists():
            return None
        facts, values = checkpoint.load(self._checkpoint)
        if facts["task"] != task:
            return None
        count = facts["variables"]
        shapes = [tuple(variable.shape) for variable in checkpoint.variables_of(model)]
        if shapes != [value.shape for value in values[:count]]:
            raise ValueError(
                f"'{self._checkpoint}' is of another model of task '{task}': its head or its "
                "optimizer has changed since. Repeat the script as it was to continue, or delete "
                "the file to start the task again."
            )
        checkpoint.put_back(model, values[:count])
        phases.restore(facts["phases"], values[count:])
        return facts["entry"]

    def checkpoint(self, task: str, model: TaskModel, phases: Phases, entry: dict) -> None:
        """Keeps the state after an epoch.

        Args:
            task: the name of the task.
            model: its compiled model.
            phases: those it is in.
            entry: its entry in the history so far.
        """
        if self._writes:
            values = checkpoint.take(model)
            facts = {
                "task": task,
                "settings": self._settings,
                "entry": entry,
                "phases": phases.state(),
                "variables": len(values),  # what follows them belongs to the phases
            }
            checkpoint.save(self._checkpoint, facts, [*values, *phases.arrays()])

    def commit(self, task: str, net: PackNet, entry: dict) -> None:
        """Keeps a task that is committed.

        Args:
            task: its name.
            net: the pack.
            entry: its entry in the history.
        """
        self.history[task] = entry
        if self._writes:
            self.history.write(self._history)
            self.keep(net)
            self._checkpoint.unlink(missing_ok=True)

    def _note(self, net: PackNet) -> None:
        """Notes that a pack is not behind its file; several workers read it anew, all alike."""
        if self._pack.exists() and not has_workers(strategy_of(net)):
            _LATEST[net] = _stamp(self._pack)

    @staticmethod
    def _read(path: pathlib.Path) -> dict:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @staticmethod
    def _put(path: pathlib.Path, value: dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(value), encoding="utf-8")

    @property
    def tensorboard(self) -> pathlib.Path | None:
        """Where this process writes for TensorBoard; None: nowhere."""
        return self._folder / "tensorboard" if self._writes else None

    @property
    def _folder(self) -> pathlib.Path:
        if self.directory is None:
            raise ValueError("The run has no directory, so none of its files.")
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
    def _memory(self) -> pathlib.Path:
        return self._folder / "prepared.json"
