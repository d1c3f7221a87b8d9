"""A session that answers for one task of a multitask file. Imports neither Keras nor TensorFlow."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import listed, quoted
from packnet_tf.export.runtime.session import are_names

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TASKS_INPUT = "tasks"  # the input that says which tasks are to answer, and the metadata about them


def tasks_in(session: "InferenceSession") -> list[str]:
    """Returns the names of the tasks of a multitask file; empty for the file of one task.

    Args:
        session: an open file.
    """
    return list(_described(session))


def check_task(task: str, known: Iterable[str], file: str = "The file") -> None:
    """Refuses a task that a multitask file does not have.

    Raises:
        ValueError: it is not among the known tasks; the message names them.
    """
    if task not in known:
        raise ValueError(f"{file} has no task '{task}'; it has {listed(known)}.")


@dataclasses.dataclass(frozen=True)
class Output:
    """An output of a task, as onnxruntime describes one."""

    name: str
    shape: Sequence[int | str | None]
    type: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """The metadata of a task, as onnxruntime gives them."""

    custom_metadata_map: dict[str, str]


class TaskSession:
    """Answers for one task of a multitask file, as a session of the task's own file does.

    Args:
        session: an open multitask file. Several tasks may share it.
        task: the task's name.

    Raises:
        ValueError: the file has no such task, or is not a multitask file.

    Example:
        >>> import onnxruntime
        >>> birds = TaskSession(onnxruntime.InferenceSession("all.onnx"), "birds")
        >>> [logits] = birds.run(None, {"image": images})
    """

    def __init__(self, session: "InferenceSession", task: str) -> None:
        described = _described(session)
        if not described:
            own = session.get_modelmeta().custom_metadata_map.get("task")
            whose = "no file of this package" if own is None else f"the file of one task, '{own}'"
            raise ValueError(f"This is {whose}. Run its session itself, without TaskSession.")
        check_task(task, described)
        self._session, self._task = session, task
        self._facts = described[task]
        self._asked = np.array([name == task for name in described])

    def get_inputs(self) -> list[Any]:
        """Returns the inputs of the task."""
        return self._session.get_inputs()

    def get_outputs(self) -> list[Output]:
        """Returns the outputs of the task, under the names that they have in its own file."""
        every = {entry.name: entry for entry in self._session.get_outputs()}
        return [
            Output(name.removesuffix(f"_{self._task}"), every[name].shape, every[name].type)
            for name in self._facts["outputs"]
        ]

    def get_modelmeta(self) -> Facts:
        """Returns the metadata that the task's own file has."""
        facts = dict(self._session.get_modelmeta().custom_metadata_map)
        del facts[TASKS_INPUT]
        if self._facts["classes"] is not None:
            facts["classes"] = json.dumps(self._facts["classes"])
        return Facts({**facts, "task": self._task})

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns outputs of the task for a batch; other tasks are not computed.

        Args:
            names: which outputs, as `get_outputs` names them; None for all.
            feeds: arrays by the names of the inputs.

        Raises:
            ValueError: the task has no such output.
        """
        every = {name.removesuffix(f"_{self._task}"): name for name in self._facts["outputs"]}
        for name in names or ():
            if name not in every:
                raise ValueError(
                    f"Task '{self._task}' has no output '{name}'; it has {', '.join(every)}."
                )
        wanted = [every[name] for name in (every if names is None else names)]
        return self._session.run(wanted, {**feeds, TASKS_INPUT: self._asked})


def _described(session: "InferenceSession") -> dict[str, dict]:
    """Returns what the metadata say of each task; empty if they are not of a multitask file.

    Raises:
        ValueError: they are, but are damaged.
    """
    facts = session.get_modelmeta().custom_metadata_map
    try:
        found = parse_json(facts.get(TASKS_INPUT, "{}"))
    except ValueError:
        return {}
    # Other programs may have written metadata of this name.
    ours = isinstance(found, dict) and all(
        isinstance(entry, dict) and {"classes", "outputs"} <= entry.keys()
        for entry in found.values()
    )
    if not ours:
        return {}
    outputs = [output.name for output in session.get_outputs()]
    for task, entry in found.items():
        named, classes = entry["outputs"], entry["classes"]
        fits = isinstance(named, list) and all(name in outputs for name in named)
        if not (fits and (classes is None or are_names(classes))):
            raise ValueError(
                f"The metadata of task {quoted(repr(task))} are damaged: the graph lacks an output "
                "that they name, or the classes are no names. Write the file again with packnet "
                "export."
            )
    return found
