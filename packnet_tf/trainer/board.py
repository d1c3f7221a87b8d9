"""TensorBoard: scalars of every epoch, and who owns the weights of every layer."""

import importlib.util
import pathlib

import tensorflow as tf


def open_board(directory: pathlib.Path | None, wanted: bool | str):
    """A writer of event files, or of nothing.

    Args:
        directory: where to write; None: nowhere.
        wanted: True, False, or "auto": where the tensorboard package is installed.

    Raises:
        ValueError: it is wanted, but the package is missing.
    """
    installed = importlib.util.find_spec("tensorboard") is not None
    if wanted is True and not installed:
        raise ValueError(
            "tensorboard=True needs the package of that name, which is not installed. Install it "
            "(pip install tensorboard), or leave tensorboard out."
        )
    if directory is None or not wanted or not installed:
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(str(directory))


def write_epoch(writer, task: str, entry: dict) -> None:
    """Writes the numbers of an epoch, as `task/name`."""
    if not importlib.util.find_spec("tensorboard"):
        return
    with writer.as_default():
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name != "epoch":
                tf.summary.scalar(f"{task}/{name}", value, step=entry["epoch"])


def write_owners(writer, net) -> None:
    """Writes, per layer, a histogram of the owners of its weights; the step is the task."""
    if not importlib.util.find_spec("tensorboard"):
        return
    with writer.as_default():
        for path, owner in net.owners().items():
            buckets = len(net.tasks) + 1
            tf.summary.histogram(f"owners/{path}", owner, step=len(net.tasks), buckets=buckets)
        whole = net.capacity().sum()
        for name, count in {**whole["owned"], "free": whole["free"]}.items():
            tf.summary.scalar(f"share/{name}", count / whole["total"], step=len(net.tasks))
    writer.flush()
