"""Packs as ordinary `.keras` files.

The file is Keras's own format, written and read by Keras: a JSON configuration, HDF5 arrays, no
pickle. Its root object is an `Archive`, its child the packed trunk, whose layers store their
owners and claims in as few bits as they need.
"""

import json
import pathlib
import tempfile
import zipfile

import keras
import numpy as np

from packnet_tf.backend.atomic import replacing
from packnet_tf.net import PackNet
from packnet_tf.packing.policy import Policy, own_weights
from packnet_tf.packing.weight import values_of
from packnet_tf.reporting.storage_use import bytes_in
from packnet_tf.tasks.names import check_usable
from packnet_tf.tasks.records import Head, TaskRecord
from packnet_tf.tasks.task_model import RETRAINING

FORMAT = 6
READABLE = (FORMAT, 5)  # in 5 every task sees all earlier ones


@keras.saving.register_keras_serializable("packnet_tf")
class Archive(keras.layers.Layer):
    """The saved form of a pack: what `PackNet.save` gives Keras to write."""

    def __init__(self, trunk, facts: dict, tasks: list[TaskRecord], phase=0, seen=0.0, **kwargs):
        super().__init__(name="pack", **kwargs)
        self.trunk = trunk
        self.facts = facts
        self.phase, self.batches_seen = phase, seen
        # Kept from Keras's attribute tracking: the heads here are templates without weights.
        self.__dict__["tasks"] = tasks
        self.built = True

    def get_config(self):
        tasks = [
            {
                "name": task.name,
                "classes": task.classes,
                "claim_ratio": task.claim_ratio,
                "head": task.head.config,
                "head_weights": task.head_weights,
                "own_places": task.own_places,
                "results": task.results,
                "sees": task.sees,
                "adopted": task.adopted,
                "statistics": task.statistics,
            }
            for task in self.tasks
        ]
        return {
            "facts": dict(self.facts),
            "phase": self.phase,
            "batches_seen": self.batches_seen,
            "trunk": keras.saving.serialize_keras_object(self.trunk),
            # One string: Keras goes through lists item by item, and this one is long.
            "tasks": json.dumps(tasks),
        }

    @classmethod
    def from_config(cls, config):
        version = config["facts"]["format"]
        if version not in READABLE:
            raise ValueError(
                f"it has format {version}, and this packnet_tf reads format "
                f"{' and '.join(map(str, READABLE))}: install the packnet_tf that wrote it"
            )
        tasks = []
        for number, task in enumerate(json.loads(config["tasks"]), start=1):
            head = Head(config=task["head"])
            if not _is_of_keras(task["head"]):
                head.layer  # noqa: B018  what cannot be trusted is refused here and now
            sees = tuple(task.get("sees", range(1, number + 1)))  # files of format 5 lack it
            if sees != (*sorted({*sees} & {*range(1, number)}), number):
                raise ValueError(f"its task number {number} sees the tasks {sees}")
            record = TaskRecord(task["name"], sees, head, task["classes"], task["claim_ratio"])
            record.head_weights, record.own_places = task["head_weights"], task["own_places"]
            record.adopted = task.get("adopted", False)  # older files lack these
            record.results = task.get("results", {})
            record.statistics = task.get("statistics", "task")
            tasks.append(record)
        trunk = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(trunk, config["facts"], tasks, config["phase"], config.get("batches_seen", 0.0))

    def save_own_variables(self, store):
        # One array for all: HDF5 takes half a kilobyte and a third of a millisecond for every one.
        values = b"".join(task.values for task in self.tasks)
        store["tasks"] = np.frombuffer(values, np.uint8)

    def load_own_variables(self, store):
        values = np.array(store["tasks"]).tobytes()
        own = [bytes_in(variable) for _, variable in own_weights(self.trunk)]
        start = 0
        for task in self.tasks:
            end = start + sum(own[place] for place in task.own_places) + task.head_bytes
            task.values, start = values[start:end], end
        if start != len(values):
            raise ValueError(
                f"the tasks have {len(values)} bytes of values of their own, and their shapes say "
                f"{start}"
            )


def _is_of_keras(config) -> bool:
    """Whether a layer's configuration names classes of Keras alone, and no function."""
    if isinstance(config, list):
        return all(map(_is_of_keras, config))
    if not isinstance(config, dict):
        return True
    if "class_name" in config:
        module = str(config.get("module")).partition(".")[0]
        if module != "keras" or "lambda" in str(config["class_name"]).lower():
            return False
    return all(map(_is_of_keras, config.values()))


def save(net: PackNet, path) -> None:
    """Writes a pack to a `.keras` file; `PackNet.save` is the public name.

    Raises:
        ValueError: the path does not end in `.keras`.
    """
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"A pack is saved as a .keras file; got '{path}'. Write 'pack.keras'.")
    tasks, phase, seen = list(net._records), 0, 0.0
    if net._open:
        record, model = net._open
        phase = model.current_phase
        seen = float(keras.ops.convert_to_numpy(model.batches_seen))
        record.keep(model)
        tasks.append(record)
    policy = net.policy
    facts = {
        "format": FORMAT,
        "committed": len(net._records),
        "biases": policy.biases,
        "norms": policy.norms,
        "restart": policy.restart,
        "embeddings": policy.embeddings,
        "paths": list(net._weights),
        "notes": {str(key): str(value) for key, value in net.notes.items()},
    }
    with replacing(path) as temporary:
        keras.saving.save_model(Archive(net._trunk, facts, tasks, phase, seen), temporary)


def load(path) -> PackNet:
    """Reads a pack that `PackNet.save` wrote; nothing in the file is executed.

    Args:
        path: a `.keras` file.

    Returns:
        The pack, an open task included: go on with `net.open_model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not a pack; the message names it and says why.

    Example:
        >>> net = packnet_tf.load("pack.keras")
        >>> net.task_model("birds").predict(images)
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no pack '{path}'. net.save(path) writes one.")
    _refuse_damaged(path)
    try:
        archive = keras.saving.load_model(path)
    except Exception as error:  # Keras raises many kinds; each means that this file is no use
        raise _unreadable(path, error) from error
    if not isinstance(archive, Archive):
        raise ValueError(
            f"'{path}' is not a pack but a saved {type(archive).__name__}. Read it with "
            "keras.saving.load_model; to pack it as a trunk, write packnet_tf.PackNet(model)."
        )
    try:
        return _restore(archive)
    except Exception as error:  # whatever an edited or half-understood file leads to
        raise _unreadable(path, error) from error


def to_bytes(net: PackNet) -> bytes:
    """A pack as the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pack.keras"
        net.save(path)
        return path.read_bytes()


def from_bytes(data: bytes) -> PackNet:
    """The pack of such bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pack.keras"
        path.write_bytes(data)
        return load(path)


def restore(net: PackNet, path) -> None:
    """Puts the tasks of a pack file into a pack that has none of them, or the first ones.

    Args:
        net: made from the same trunk; it becomes the pack in the file.
        path: a `.keras` file that `PackNet.save` wrote.

    Raises:
        FileNotFoundError, ValueError: as for `load`, or the file is of another pack.
    """
    saved = load(path)
    ours = {name: weight.packed.shape for name, weight in net._weights.items()}
    theirs = {name: weight.packed.shape for name, weight in saved._weights.items()}
    same = ours == theirs and saved.tasks[: len(net.tasks)] == net.tasks
    if not (same and saved.policy == net.policy and _has_weights_of(net, saved)):
        raise ValueError(
            f"'{path}' is not an earlier state of this pack: its trunk, its policy or its first "
            f"tasks ({', '.join(saved.tasks) or 'none'}) differ. Use the trunk, the policy and "
            "the tasks that it was made with, or another directory."
        )
    for model in saved._models:
        model.pack = net
    vars(net).update(vars(saved))


def _has_weights_of(net: PackNet, saved: PackNet) -> bool:
    """Whether the tasks of one pack own the same weights, of the same values, in another one."""
    for path, weight in net._weights.items():
        other = saved._weights[path]
        packed, owner = values_of([weight.packed, weight.owner])
        their_packed, their_owner = values_of([other.packed, other.owner])
        # Later tasks may own what is free here.
        if not np.array_equal(owner, np.where(their_owner <= len(net.tasks), their_owner, 0)):
            return False
        if not np.array_equal(packed[owner > 0], their_packed[owner > 0]):
            return False
    return True


def _unreadable(path, error: Exception) -> ValueError:
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return ValueError(f"Cannot read pack '{path}': {text}")


def _refuse_damaged(path: pathlib.Path) -> None:
    remedy = "Restore it from a backup, or save the pack again."
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
            names = file.namelist()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"'{path}' is damaged or not a .keras file: {error} (is it cut short?). {remedy}"
        ) from error
    if broken:
        raise ValueError(f"'{path}' is damaged: the checksum of its '{broken}' is wrong. {remedy}")
    missing = {"config.json", "model.weights.h5"} - set(names)
    if missing:
        raise ValueError(f"'{path}' is damaged: it lacks {sorted(missing)}. {remedy}")


def _restore(archive: Archive) -> PackNet:
    facts = archive.facts
    net = PackNet.__new__(PackNet)
    policy = (facts[name] for name in ("biases", "norms", "restart", "embeddings"))
    net._setup(archive.trunk, Policy(*policy))
    # Names of layers within layers are not in any configuration.
    net._weights = dict(zip(facts["paths"], net._weights.values(), strict=True))
    net.notes = dict(facts["notes"])
    names = [record.name for record in archive.tasks]
    for name in names:
        check_usable(name)
    if len(set(names)) < len(names):
        raise ValueError(f"two of its tasks have the same name: {', '.join(names)}")
    committed = archive.tasks[: facts["committed"]]
    counts = [weight.owner_counts(len(committed)) for weight in net._weights.values()]
    for record in committed:
        record.owned = [count[record.number] for count in counts]
    net._records = committed
    for record in archive.tasks[facts["committed"] :]:
        model = net._build(record)
        record.assign_to(model)
        model.phase.assign(archive.phase)
        model.batches_seen.assign(archive.batches_seen)
        net._open = (record, model)
        net._was_pruned = archive.phase == RETRAINING
    return net
