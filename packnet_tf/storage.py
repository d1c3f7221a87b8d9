"""Packs as ordinary `.keras` files.

The file is Keras's own format, written and read by Keras: a JSON configuration, HDF5 arrays, no
pickle. Its root object is an `Archive`, its child the packed trunk, whose layers store their
owners and claims in as few bits as they need.
"""

import json
import pathlib
import zipfile

import keras
import numpy as np

from packnet_tf.atomic import replacing
from packnet_tf.net import PackNet
from packnet_tf.policy import Policy, own_weights
from packnet_tf.records import TaskRecord, assign, values_of
from packnet_tf.task_model import RETRAINING

FORMAT = 3


@keras.saving.register_keras_serializable("packnet_tf")
class Archive(keras.layers.Layer):
    """The saved form of a pack: what `PackNet.save` gives Keras to write."""

    def __init__(self, trunk, facts: dict, tasks: list[TaskRecord], phase: int = 0, **kwargs):
        super().__init__(name="pack", **kwargs)
        self.trunk = trunk
        self.facts = facts
        self.phase = phase
        # Kept from Keras's attribute tracking: the heads here are templates without weights.
        self.__dict__["tasks"] = tasks
        self.built = True

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "facts": dict(self.facts),
            "phase": self.phase,
            "trunk": serialize(self.trunk),
            "tasks": [
                {
                    "name": task.name,
                    "classes": task.classes,
                    "claim_ratio": task.claim_ratio,
                    "head": serialize(task.head),
                    # One string: Keras goes through lists item by item, and these are long.
                    "values": json.dumps(
                        {
                            "own_places": list(task.own_values),
                            "own": _describe(task.own_values.values()),
                            "head": _describe(task.head_values),
                        }
                    ),
                }
                for task in self.tasks
            ],
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        version = config["facts"]["format"]
        if version != FORMAT:
            raise ValueError(
                f"it has format {version}, and this packnet_tf reads format {FORMAT}: install the "
                "packnet_tf that wrote it"
            )
        tasks = []
        for number, task in enumerate(config["tasks"], start=1):
            record = TaskRecord(task["name"], number, deserialize(task["head"]), task["classes"])
            described = json.loads(task["values"])
            places = described["own_places"]
            record.own_values = dict(zip(places, described["own"], strict=True))
            record.head_values = described["head"]
            record.claim_ratio = task["claim_ratio"]
            tasks.append(record)
        return cls(deserialize(config["trunk"]), config["facts"], tasks, config["phase"])

    def save_own_variables(self, store):
        values = [v for task in self.tasks for v in (*task.own_values.values(), *task.head_values)]
        # One array for all: HDF5 takes half a kilobyte and a third of a millisecond for every one.
        parts = [np.frombuffer(value.tobytes(), np.uint8) for value in values]
        store["tasks"] = np.concatenate([np.zeros(0, np.uint8), *parts])

    def load_own_variables(self, store):
        data = np.array(store["tasks"])
        for task in self.tasks:
            described = [*task.own_values.values(), *task.head_values]
            values, data = _split(data, described, task.name)
            own = len(task.own_values)
            task.own_values = dict(zip(task.own_values, values[:own], strict=True))
            task.head_values = values[own:]
        if data.size:
            raise ValueError("the values of the tasks are more than their shapes say")


def _describe(arrays) -> list:
    return [[list(array.shape), str(array.dtype)] for array in arrays]


def _split(data: np.ndarray, described: list, task: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Cuts arrays of the described shapes and dtypes off some bytes; returns these and the rest."""
    values = []
    for shape, dtype in described:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        part, data = data[:size], data[size:]
        if part.size != size:
            raise ValueError(f"the values of task '{task}' have not the size that its shapes say")
        values.append(np.frombuffer(part.tobytes(), dtype).reshape(shape).copy())
    return values, data


def save(net: PackNet, path) -> None:
    """Writes a pack to a `.keras` file; `PackNet.save` is the public name.

    Raises:
        ValueError: the path does not end in `.keras`.
    """
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"A pack is saved as a .keras file; got '{path}'. Write 'pack.keras'.")
    tasks, phase = list(net._records), 0
    if net._open:
        record, model = net._open
        phase = model.current_phase
        record.head_values = values_of(model.head.weights)
        own = values_of(variable for _, variable in own_weights(model.trunk))
        record.own_values = dict(enumerate(own))
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
        keras.saving.save_model(Archive(net._trunk, facts, tasks, phase), temporary)


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
    committed = archive.tasks[: facts["committed"]]
    counts = [weight.owner_counts(len(committed)) for weight in net._weights.values()]
    for record in committed:
        record.owned = [count[record.number] for count in counts]
    net._records = committed
    for record in archive.tasks[facts["committed"] :]:
        model = net._build(record)
        assign(model, record)
        model.phase.assign(archive.phase)
        net._open = (record, model)
        net._was_pruned = archive.phase == RETRAINING
    return net
