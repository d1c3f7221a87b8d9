"""Opens exported files. Imports neither Keras nor TensorFlow."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, Union

from packnet_tf.apps import cli
from packnet_tf.apps.device.weight_files import changed_weights, weight_files
from packnet_tf.backend.text import listed, quoted
from packnet_tf.export.runtime.session import session
from packnet_tf.export.runtime.task_session import TaskSession, check_task, tasks_in

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Session: TypeAlias = Union["InferenceSession", TaskSession]
COPY = "Copy the model and its weights again, from one export to one folder."


def sessions_of(
    path: str, provider: str = "cpu", tasks: Sequence[str] | None = None
) -> list[Session]:
    """Opens a file; returns a session for each of its tasks.

    Args:
        path: a file of one task, or of several; the sessions of these share its memory.
        provider: the execution provider.
        tasks: only these; None or empty for all. A file that names no task is of any.

    Raises:
        FileNotFoundError, ProviderError, ValueError: as for `open_file`; ValueError also if the
            file has none of these tasks, or not all of them and several others.
    """
    opened = open_file(path, provider)
    try:
        known = tasks_in(opened)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    if not known:
        task = opened.get_modelmeta().custom_metadata_map.get("task")
        if tasks and task is not None and task not in tasks:
            raise ValueError(
                f"'{quoted(path)}' is the file of task '{quoted(task)}', not of {listed(tasks)}."
            )
        return [opened]
    for task in tasks or ():
        check_task(task, known, f"'{path}'")
    return [TaskSession(opened, task) for task in known if not tasks or task in tasks]


def open_file(path: str, provider: str = "cpu"):
    """Opens a file in onnxruntime; an error names the file that is at fault.

    Raises:
        FileNotFoundError: the file, or a file with its weights, is missing.
        ProviderError: the provider is not available.
        ValueError: onnxruntime cannot read it.
    """
    cli.need("onnxruntime", "onnxruntime")
    if os.path.isdir(path):
        raise IsADirectoryError(
            f"'{path}' is a folder. Name the file of one task, for instance "
            f"{os.path.join(path, 'model_task1.onnx')}."
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model '{path}'. packnet export writes one.")
    for file, what in changed_weights(path).items():
        raise ValueError(f"'{path}' has weights in '{file}', which does not fit: {what}. {COPY}")
    try:
        return session(path, provider)
    except ValueError:  # of ours
        raise
    except Exception as error:  # onnxruntime's exception classes are not public
        beside = weight_files(path)
        for file in beside:
            if not os.path.isfile(file):  # False for a name that no file can have, too
                raise FileNotFoundError(
                    f"'{path}' has weights in '{quoted(file)}', which is missing. {COPY}"
                ) from error
        if beside:
            files = quoted(" or ".join(f"'{file}'" for file in beside))
            raise ValueError(
                f"'{path}' has weights in {files}, which does not fit: {quoted(error)}. {COPY}"
            ) from error
        raise ValueError(
            f"'{path}' is not a model that onnxruntime can read: {quoted(error)}. Write it "
            "again with packnet export."
        ) from error
