"""TensorBoard logs: scalars per epoch, and the owners of each layer's weights."""

import importlib.util
import pathlib

import tensorflow as tf

from packnet_tf.net import PackNet


class Board:
    """Writes TensorBoard event files.

    Args:
        directory: where to write; None: nothing is written.
        wanted: True, False, or "auto": if the tensorboard package is installed.

    Raises:
        ValueError: `wanted` is True, and the package is not installed.
    """

    def __init__(self, directory: pathlib.Path | None, wanted: bool | str):
        installed = importlib.util.find_spec("tensorboard") is not None
        if wanted is True and not installed:
            raise ValueError(
                "tensorboard=True needs the package of that name, which is not installed. Install "
                "it (pip install tensorboard), or leave tensorboard out."
            )
        self._writer = None
        if directory is not None and wanted and installed:
            self._writer = tf.summary.create_file_writer(str(directory))

    def close(self) -> None:
        """Closes the files."""
        if self._writer is not None:
            self._writer.close()

    def epoch(self, task: str, entry: dict) -> None:
        """Writes an epoch's numbers as scalars `task/name`."""
        if self._writer is None:
            return
        with self._writer.as_default(step=entry["epoch"]):
            for name, value in entry.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    tf.summary.scalar(f"{task}/{name}", value)

    def owners(self, net: PackNet) -> None:
        """Writes a histogram of owners per layer, and each task's share; steps count tasks."""
        if self._writer is None:
            return
        whole, buckets = net.capacity().sum(), len(net.tasks) + 1
        with self._writer.as_default(step=len(net.tasks)):
            for path, owner in net.owners().items():
                tf.summary.histogram(f"owners/{path}", owner, buckets=buckets)
            for name, count in {**whole["owned"], "free": whole["free"]}.items():
                tf.summary.scalar(f"share/{name}", count / whole["total"])
        self._writer.flush()
