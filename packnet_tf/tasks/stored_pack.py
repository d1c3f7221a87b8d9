"""Packs in files: saving, restoring, copying, and the facts that are saved with tasks."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from packnet_tf.backend.json_files import as_json
from packnet_tf.backend.text import listed
from packnet_tf.backend.types import AnyPath
from packnet_tf.backend.writers import announce, is_changed, locked, mark_current, stamp
from packnet_tf.tasks import storage
from packnet_tf.tasks.checks import as_results
from packnet_tf.tasks.integrity.changes import configurations
from packnet_tf.tasks.pack import Pack
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.transaction import Transaction

WAIT = 30.0  # seconds for another process that saves the pack

PackOf = TypeVar("PackOf", bound="StoredPack")


class OtherPack(ValueError):
    """A pack cannot go on from a saved state, which is not an earlier or later one of its own.

    Args:
        fact: what differs, as a sentence without its full stop.
        remedy: what to do.

    Attributes:
        fact: the argument, for a caller with another remedy.
    """

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(f"{fact}. {remedy}")
        self.fact = fact


class StoredPack(Pack):
    """A pack that can be saved, restored, copied and pickled."""

    def save(self, path: AnyPath) -> None:
        """Writes the pack, an open task included, to one `.keras` file; see `packnet_tf.load`.

        The file is written atomically: after a crash, the old file is intact. The optimizer of an
        open task is not saved.

        Args:
            path: the file to write; its name ends in `.keras`.

        Raises:
            ValueError: the name does not end in `.keras`.
            RuntimeError: weights of committed tasks were changed after their commits; or the
                pack was read from this file or saved to it, and another program or another pack has
                changed the file since.
            BlockingIOError: another process is using the file.

        Example:
            >>> net.save("pack.keras")
        """
        state = self._to_write()
        with locked(path, wait=WAIT):
            if is_changed(self, path):
                raise storage.changed_since(path, self.tasks)
            storage.write(state, path, lambda new: announce(self, path, new))
            mark_current(self, path, stamp(path))

    def _to_write(self) -> PackState:
        """Returns the state with the present values of an open task.

        Raises:
            RuntimeError: weights of committed tasks were changed after their commits.
        """
        self.state.check_unchanged("save the pack")
        if self.open_model is None:
            return self.state
        record = self.state.need_open("save")
        self._check_layers("save the pack")
        return self.state.with_last(record.kept(self.open_model))

    def restore(self, path: AnyPath) -> None:
        """Replaces the pack by a later state of it that was saved.

        Notes, results and metadata that this pack has since are kept. Free weights restart from
        the values in the file.

        Args:
            path: a `.keras` file of a pack whose trunk has the same layers, and whose first tasks
                are this pack's.

        Raises:
            FileNotFoundError, ValueError: as for `load`; ValueError also if the file belongs to
                another pack. The pack then does not change.

        Example:
            >>> net.restore("pack.keras")
        """
        read = stamp(path)
        saved, known = storage.read(path), self.state.committed
        if not _is_later(saved, self.state):
            raise OtherPack(
                f"'{path}' is not a later state of this pack: its trunk, its policy or its "
                f"first tasks ({listed(saved.tasks) or 'none'}) differ",
                "Use the trunk, the policy and the tasks that it was made with, or another "
                "directory.",
            )
        # Models of known tasks find them by their key.
        same_tasks = [
            dataclasses.replace(
                new,
                key=old.key,
                results={**new.results, **old.results},
                metadata={**new.metadata, **old.metadata},
            )
            for new, old in zip(saved.committed, known, strict=False)
        ]
        records = (*same_tasks, *saved.records[len(known) :])
        with Transaction(self), storage.naming(path):
            notes = {**saved.notes, **self.notes}
            self._take(dataclasses.replace(saved, records=records, notes=notes))
            mark_current(self, path, read)

    def _take(self, state: PackState) -> None:
        """Takes over a state, and builds a model for its open task."""
        self.state, self._open_model = state, None
        if state.open is not None:
            model = self._build(state.open)
            state.open.assign_to(model)
            state.open.key.made_of = configurations(model)
            self.state, self._open_model = state.with_weights_of(model.trunk), model

    def note_results(self, name: str, **results: float) -> None:
        """Saves accuracies with a committed task, in addition to earlier ones; see `results`.

        Args:
            name: the task's name.
            results: accuracies by name, 0 to 1.

        Raises:
            ValueError: there is no committed task of that name, or a result is no number.

        Example:
            >>> net.note_results("birds", test=0.9)
        """
        found = {**self.results(name), **as_results(name, results)}
        self.state = self.state.with_committed(name, results=found)

    def note_metadata(self, name: str, **values: Any) -> None:
        """Saves facts about a committed task, in addition to earlier ones; see `metadata`.

        Args:
            name: the task's name.
            values: JSON values by name.

        Raises:
            ValueError: there is no committed task of that name, or a value is no JSON value.

        Example:
            >>> net.note_metadata("birds", source="garden camera, 2025")
        """
        found = {**self.metadata(name), **as_json(values, f"Metadata of task '{name}'")}
        self.state = self.state.with_committed(name, metadata=found)

    @classmethod
    def from_file(cls: type[PackOf], path: AnyPath) -> PackOf:
        """Reads a pack; `packnet_tf.load` is the public name.

        Args:
            path: a `.keras` file.

        Raises:
            FileNotFoundError, ValueError: as for `packnet_tf.load`.
        """
        net = cls.__new__(cls)
        read = stamp(path)
        state = storage.read(path)
        with storage.naming(path):
            net._take(state)  # noqa: SLF001  an object of this class
        mark_current(net, path, read)
        return net

    def __reduce__(self) -> tuple[Callable, tuple]:
        """Copies (`copy.deepcopy`) and pickles the pack through its file format.

        A copy shares nothing with the pack. The model of an open task has no optimizer.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "pack.keras"
            storage.write(self._to_write(), path)
            return _from_bytes, (type(self), path.read_bytes())


def _is_later(saved: PackState, state: PackState) -> bool:
    """Returns whether a state has the trunk, the policy and the tasks of another one, or more."""

    def facts(of: PackState) -> tuple:
        shapes = {path: tuple(weight.packed.shape) for path, weight in of.weights.items()}
        tasks = [(task.name, task.owned_digest) for task in of.committed]
        return shapes, of.policy, tasks[: len(state.committed)]

    return facts(saved) == facts(state)


def _from_bytes(cls: type[PackOf], data: bytes) -> PackOf:
    """Reads a pack from the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pack.keras"
        path.write_bytes(data)
        return cls.from_file(path)
