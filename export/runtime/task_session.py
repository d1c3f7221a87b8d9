"""A session that answers for one task of a multitask file. Imports neither Keras nor TensorFlow."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHOICE = "tasks"  # the input that says which tasks are to answer, and the metadata about them


def tasks_in(session: "InferenceSession") -> list[str]:
    """Returns the names of the tasks of a multitask file; empty for the file of one task.

    Args:
        session: an open file.
    """
    return list(_described(session))


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
        ValueError: the file has no such task.

    Example:
        >>> import onnxruntime
        >>> birds = TaskSession(onnxruntime.InferenceSession("all.onnx"), "birds")
        >>> [logits] = birds.run(None, {"image": images})
    """

    def __init__(self, session: "InferenceSession", task: str) -> None:
        described = _described(session)
        if task not in described:
            raise ValueError(f"The file has no task '{task}'; it has {', '.join(described)}.")
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
        del facts[CHOICE]
        if self._facts["classes"] is not None:
            facts["classes"] = json.dumps(self._facts["classes"])
        return Facts({**facts, "task": self._task})

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns outputs of the task for a batch; other tasks are not computed.

        Args:
            names: which outputs, as `get_outputs` names them; None for all.
            feeds: arrays by the names of the inputs.
        """
        wanted = self._facts["outputs"]
        if names is not None:
            wanted = [f"{name}_{self._task}" for name in names]
        return self._session.run(wanted, {**feeds, CHOICE: self._asked})


def _described(session: "InferenceSession") -> dict[str, dict]:
    facts = session.get_modelmeta().custom_metadata_map
    return json.loads(facts.get(CHOICE, "{}"))
