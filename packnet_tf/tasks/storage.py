"""Saves and reads packs as `.keras` files.

Keras writes and reads the file in its own format: a JSON configuration and HDF5 arrays, without
pickle. The root object is an `Archive`. It contains the packed trunk, whose layers store owners and
claims bit-packed.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf import __version__
from packnet_tf.backend.archives import CONFIG, check_keras_file
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.keras_internals import at_most
from packnet_tf.backend.text import MESSAGE, listed, quoted, shortened
from packnet_tf.backend.types import AnyPath
from packnet_tf.packing.layers import Store
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import OVERLAY_NUMBER, is_finite
from packnet_tf.reporting.storage_use import bytes_in
from packnet_tf.tasks.integrity.digests import (
    Digests,
    digest_of,
    owned_digests,
    unowned_digest,
)
from packnet_tf.tasks.integrity.file_values import check_archive, check_task
from packnet_tf.tasks.overlays import parts_of
from packnet_tf.tasks.records import Head, TaskRecord
from packnet_tf.tasks.state import PackState
from packnet_tf.tasks.task_model import Phase

FORMAT = 8
# Before 8 there are no digests; before 7 neither a stem nor overlays; in 5 every task sees all
# earlier ones.
READABLE = (FORMAT, 7, 6, 5)
DIGESTS = 8  # the first format with them


@keras.saving.register_keras_serializable("packnet_tf")
class Archive(keras.layers.Layer):
    """The saved form of a pack: the layer that `PackNet.save` passes to Keras.

    Args:
        trunk: the store.
        facts: properties of the whole pack, as JSON values.
        tasks: the records in the order of packing; an open task's record is the last.
    """

    tasks: list[TaskRecord]
    digests: list[str | None]  # of the tasks' own values, as the file says

    def __init__(
        self, trunk: PackedTrunk, facts: dict[str, Any], tasks: list[TaskRecord], **kwargs: Any
    ) -> None:
        super().__init__(name="pack", **kwargs)
        self.trunk = trunk
        self.facts = facts
        # Bypasses Keras's attribute tracking: the heads here are templates without weights.
        self.__dict__["tasks"] = tasks
        self.built = True

    def get_config(self) -> dict[str, Any]:
        tasks = [
            {
                "name": task.name,
                "classes": task.classes,
                "claim_ratio": task.claim_ratio,
                "head": task.head.config,
                "head_weights": task.head_weights,
                "own_places": task.own_places,
                "results": task.results,
                "metadata": task.metadata,
                "sees": task.sees,
                "adopted": task.adopted,
                "statistics": task.statistics,
                "overlay": task.overlay,
                "overlay_bytes": len(task.overlaid),
                "owned_digest": task.owned_digest,
                "values_digest": _values_digest(task),
            }
            for task in self.tasks
        ]
        last = self.tasks[-1] if self.tasks else None
        open_task = None if last is None or last.phase == Phase.COMMITTED else last
        config = {
            "facts": dict(self.facts),
            "phase": 0 if open_task is None else int(open_task.weights_phase),
            "reached": 0 if open_task is None else int(open_task.phase),
            "batches_seen": 0.0 if open_task is None else open_task.batches_seen,
            "trunk": keras.saving.serialize_keras_object(self.trunk),
            # One string: Keras visits every item of a list, and this list is long.
            "tasks": json.dumps(tasks),
        }
        return {**config, "digest": digest_of(config)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Archive":
        config = dict(config)
        digest, facts = config.pop("digest", None), config.get("facts")
        version = facts.get("format") if isinstance(facts, dict) else None
        if version not in READABLE:
            raise _other_format(version, facts)
        if version >= DIGESTS and digest != digest_of(config):
            raise changed_since_saved("its configuration")
        check_archive(config, version)
        tasks: list[TaskRecord] = []
        digests: list[str | None] = []
        committed, owner = config["facts"]["committed"], 0
        for number, task in enumerate(parse_json(config["tasks"]), start=1):
            check_task(number, task, version)
            head = Head(config=task["head"])
            if not _is_of_keras(task["head"]):
                head.layer  # noqa: B018  refuses an untrusted class now, not at first use
            overlay = task.get("overlay")  # files of formats 5 and 6 lack it
            earlier, owner = range(1, owner + 1), owner + (overlay is None)
            own = owner if overlay is None else OVERLAY_NUMBER
            sees = tuple(task.get("sees", (*earlier, own)))  # files of format 5 lack it
            if sees != (*sorted({*sees} & {*earlier}), own):
                raise ValueError(f"its task number {number} sees the tasks {sees}")
            is_open = number > committed
            digests.append(task["values_digest"] if version >= DIGESTS else None)
            tasks.append(
                TaskRecord(
                    task["name"],
                    sees,
                    head,
                    task["classes"],
                    task["claim_ratio"],
                    task.get("statistics", "task"),  # older files lack this and the keys below
                    Phase(config.get("reached", config["phase"])) if is_open else Phase.COMMITTED,
                    Phase(config["phase"]) if is_open else Phase.COMMITTED,
                    config.get("batches_seen", 0.0) if is_open else 0.0,
                    task["own_places"],
                    task["head_weights"],
                    results=task.get("results", {}),
                    metadata=task.get("metadata", {}),
                    adopted=task.get("adopted", False),
                    overlay=overlay,
                    overlaid=bytes(task.get("overlay_bytes", 0)),  # until the values are read
                    owned_digest=task.get("owned_digest", ""),
                )
            )
        if len(tasks) - committed not in (0, 1):
            raise ValueError(f"it has {len(tasks)} tasks, of which {committed} are committed")
        trunk = keras.saving.deserialize_keras_object(config["trunk"])
        archive = cls(trunk, config["facts"], tasks)
        archive.__dict__["digests"] = digests
        return archive

    def save_own_variables(self, store: Store) -> None:
        # One array for all tasks: every HDF5 array costs half a kilobyte and a third of a
        # millisecond.
        values = b"".join(task.values + task.overlaid for task in self.tasks)
        store["tasks"] = np.frombuffer(values, np.uint8)

    def load_own_variables(self, store: Store) -> None:
        stored = np.asarray(store["tasks"])
        if stored.dtype != np.uint8:
            raise ValueError(f"the tasks' own values have dtype {stored.dtype}; expected uint8")
        values = stored.tobytes()
        own = [variable for _, variable in own_weights(self.trunk)]
        start = 0
        for place, (task, digest) in enumerate(zip(self.tasks, self.digests, strict=True)):
            middle = start + sum(bytes_in(own[i]) for i in task.own_places) + task.head_bytes
            end = middle + len(task.overlaid)
            self.tasks[place] = dataclasses.replace(
                task, values=values[start:middle], overlaid=values[middle:end]
            )
            if digest not in (None, _values_digest(self.tasks[place])):
                raise changed_since_saved(f"the own values of task '{task.name}'")
            start = end
            if task.phase == Phase.COMMITTED and not all(
                map(is_finite, self.tasks[place].arrays(own))
            ):
                raise ValueError(f"own values of task '{task.name}' are NaN or infinite")
        if start != len(values):
            raise ValueError(
                f"the tasks' own values take {len(values)} bytes, but their shapes need {start}"
            )


def _values_digest(task: TaskRecord) -> str:
    return digest_of(None, (task.values, task.overlaid))


def _other_format(version: object, facts: object) -> ValueError:
    """Returns the error for a file of a format that this version does not read."""
    what = f"it has format {version!r:.80}, and packnet_tf {__version__} reads formats "
    what += f"{min(READABLE)} to {max(READABLE)}"
    if type(version) is not int:
        return ValueError(f"{what}. Restore it from a backup")
    if version < FORMAT:
        return ValueError(
            f"{what}; no released version reads earlier ones. Train its tasks in a new pack"
        )
    writer = facts.get("version") if isinstance(facts, dict) else None
    newer = f"packnet_tf {writer:.80}" if isinstance(writer, str) else "the packnet_tf"
    return ValueError(f"{what}. Install {newer}, which wrote it, or a later one")


def changed_since_saved(what: str) -> ValueError:
    """Returns the error for a part of a file that something else has changed."""
    return ValueError(
        f"{what} is not as packnet_tf saved it: another program changed the file. Restore it from "
        "a backup"
    )


def _is_of_keras(config: object) -> bool:
    """Returns whether a configuration contains only classes of Keras, and no Lambda."""
    if isinstance(config, list):
        return all(map(_is_of_keras, config))
    if not isinstance(config, dict):
        return True
    if "class_name" in config:
        module = str(config.get("module")).partition(".")[0]
        if module != "keras" or "lambda" in str(config["class_name"]).lower():
            return False
    return all(map(_is_of_keras, config.values()))


def write(
    state: PackState, path: AnyPath, written: Callable[[pathlib.Path], None] | None = None
) -> None:
    """Writes a pack to a `.keras` file; `PackNet.save` is the public name.

    Args:
        state: the pack; an open task's record holds the values to write.
        path: the file to write.
        written: called with the path of the whole new file before it replaces the old one.

    Raises:
        ValueError: the path does not end in `.keras`.
    """
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"A pack is saved as a .keras file; got '{path}'. Write 'pack.keras'.")
    if os.path.isdir(path):  # not path.is_dir(), which raises for names that are too long
        raise IsADirectoryError(f"'{path}' is a folder; write '{path / 'pack.keras'}'.")
    digests = state.digests if state.committed else state.present_digests()
    facts = {
        "format": FORMAT,
        "committed": len(state.committed),
        **dataclasses.asdict(state.policy),
        "paths": list(state.weights),
        "notes": {str(key): str(value) for key, value in state.notes.items()},
        "version": __version__,
        "weight_digests": list(digests.weights),
        "shared_digest": digests.shared,
        "unowned_digest": unowned_digest(state.trunk.packed_weights().values()),
    }
    with replacing(path) as temporary:
        keras.saving.save_model(Archive(state.trunk, facts, list(state.records)), temporary)
        if written is not None:
            written(temporary)


def read(path: AnyPath) -> PackState:
    """Reads a pack that `write` wrote; `packnet_tf.load` is the public name.

    Args:
        path: a `.keras` file.

    Returns:
        The pack's state.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not a pack; the message names it and says why.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no pack '{path}'. net.save(path) writes one.")
    size = check_keras_file(path, exact=True)
    with naming(path), at_most(size, "its network"):
        archive = keras.saving.load_model(path)
    if not isinstance(archive, Archive):
        raise ValueError(
            f"'{path}' is not a pack but a saved {type(archive).__name__}. Read it with "
            "keras.saving.load_model; to pack it as a trunk, write packnet_tf.PackNet(model)."
        )
    with naming(path):
        return _state_of(archive)


def changed_since(path: AnyPath, tasks: Sequence[str]) -> RuntimeError:
    """Returns the error for a file that something else has changed since a pack was read from it.

    Args:
        path: a `.keras` file.
        tasks: the committed tasks of the pack.
    """
    try:
        check_keras_file(path := pathlib.Path(path), exact=True)
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read(CONFIG))["config"]
        names = [task["name"] for task in parse_json(config["tasks"])]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        names = []  # something else than a pack
    lost = [name for name in names if name not in tasks]
    what = f" It has the task '{lost[0]}', which this pack lacks." if lost else ""
    return RuntimeError(
        f"'{path}' was changed by another program, or from another pack, after this pack was read "
        f"from it or saved to it.{what} Saving would undo that change. Save under another name; "
        "or load the file again with packnet_tf.load, and add your task there."
    )


@contextlib.contextmanager
def naming(path: AnyPath) -> Iterator[None]:
    """Turns every error in the block into a ValueError that names the pack's file.

    Args:
        path: the file to name.

    Raises:
        ValueError: the block raised; Keras raises many types, and an edited file causes others.
    """
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        text = f"Cannot read pack '{path}': {kind}{quoted(error, MESSAGE)}"
        raise ValueError(shortened(text)) from error


def _with_digests(state: PackState) -> PackState:
    """Returns the state of a file that holds no digests, with those of its weights."""
    numbers = {record.key: record.number for record in state.owning}
    found = owned_digests(state.weights.values(), list(numbers.values()))
    digests = dict(zip(numbers, found, strict=True))
    records = [
        dataclasses.replace(record, owned_digest=digests.get(record.key, ""))
        for record in state.records
    ]
    return dataclasses.replace(state, records=tuple(records)).with_digests()


def _state_of(archive: Archive) -> PackState:
    facts, records = archive.facts, archive.tasks
    # Keras's configurations do not hold the names of nested layers.
    stored = archive.trunk.packed_weights().values()
    weights = dict(zip(facts["paths"], stored, strict=True))
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        raise ValueError(f"two of its tasks have the same name: {listed(names)}")
    owning = sum(record.owns and record.phase == Phase.COMMITTED for record in records)
    counts = [weight.owner_counts(owning) for weight in weights.values()]
    for path, weight in weights.items():
        if not weight.owned_are_finite():
            raise ValueError(f"layer '{path}' has owned weights that are NaN or infinite")
    for place, record in enumerate(records):
        if not record.owns:
            places, values = parts_of(record.overlaid, list(weights.values()))
            if record.phase == Phase.COMMITTED and not all(map(is_finite, values)):
                raise ValueError(f"task '{record.name}' overrides weights by NaN or infinity")
            owned = [int(np.count_nonzero(mask)) for mask in places]
        elif record.phase == Phase.COMMITTED:
            owned = [count[record.number] for count in counts]
        else:
            owned = []
        records[place] = dataclasses.replace(record, owned=owned)
    choices = ("biases", "norms", "restart", "embeddings")
    policy = Policy(**{name: facts[name] for name in choices}, stem=facts.get("stem"))
    state = PackState(archive.trunk, policy, weights, tuple(records), dict(facts["notes"]))
    if facts["format"] < DIGESTS:
        return _with_digests(state)
    saved = Digests(tuple(facts["weight_digests"]), facts["shared_digest"])
    state = dataclasses.replace(state, digests=saved)
    changed = state.changed_part(state.present_digests())
    if changed is None and facts["unowned_digest"] != unowned_digest(weights.values()):
        changed = "a weight that no task owns"
    if changed is not None:
        raise changed_since_saved(changed)
    return state
