"""What stays of a task's training: its history, a CSV of its epochs, and TensorBoard files."""

import contextlib
import csv
import importlib.util
import io
import os
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from packnet_tf.backend.atomic import FULL, replacing
from packnet_tf.backend.json_files import write_json
from packnet_tf.backend.text import printable
from packnet_tf.backend.types import AnyPath
from packnet_tf.net import PackNet

HISTORY = "history.json"  # in the folder of a task, like EPOCHS
EPOCHS = "epochs.csv"


class Logs:
    """Writes the measurements of each task to a folder of the task's name.

    The folder has `history.json` (the task's entry of `History`), `epochs.csv` (its epochs, a row
    each), and TensorBoard event files.

    Args:
        directory: the folder that gets these folders; None: nothing is written.
        tensorboard: True, False, or "auto": if the tensorboard package is installed.

    Raises:
        ValueError: `tensorboard` is True, and the package is not installed.
    """

    def __init__(self, directory: AnyPath | None, tensorboard: bool | str) -> None:
        installed = importlib.util.find_spec("tensorboard") is not None
        if tensorboard is True and not installed:
            raise ValueError(
                "tensorboard=True needs the package of that name, which is not installed. Install "
                "it (pip install tensorboard), or leave tensorboard out."
            )
        self._directory = None if directory is None else pathlib.Path(directory)
        self._tensorboard = bool(tensorboard) and installed
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def close(self) -> None:
        """Closes the TensorBoard files."""
        for task in list(self._writers):
            self._close(task)

    def epoch(self, task: str, entry: dict) -> None:
        """Writes the last epoch of a task.

        Args:
            task: the task's name.
            entry: the task's history entry so far.
        """
        if self._directory is None:
            return
        folder = self._directory / task
        if len(entry["epochs"]) == 1:  # those of an earlier task of this name
            if task in self._writers:
                self._close(task)
            for old in [*folder.glob("events.out.tfevents.*"), folder / HISTORY]:
                old.unlink(missing_ok=True)
        self._write_epochs(folder, entry["epochs"])
        if self._tensorboard:
            row = entry["epochs"][-1]
            with _writing(folder), self._writer(task).as_default(step=row["epoch"]):
                for name, value in row.items():
                    if isinstance(value, (int, float)) and name != "epoch":
                        tf.summary.scalar(printable(name), value)

    def packed(self, task: str, entry: dict | None) -> None:
        """Writes the history of a packed task.

        Args:
            task: the task's name.
            entry: the task's history entry; None if it was lost.
        """
        if self._directory is not None and entry is not None:
            self._write_epochs(self._directory / task, entry["epochs"])
            write_json(self._directory / task / HISTORY, entry)

    def owners(self, net: PackNet) -> None:
        """Writes a histogram of owners per layer, and each task's share, for TensorBoard.

        Args:
            net: the pack; its last task has just been committed.
        """
        if self._directory is None or not self._tensorboard:
            return
        whole, buckets = net.capacity().sum(), len(net.tasks) + 1
        task = net.tasks[-1]
        with (
            _writing(self._directory / task),
            self._writer(task).as_default(step=len(net.tasks)) as writer,
        ):
            for path, owner in net.owners().items():
                tf.summary.histogram(f"owners/{printable(path)}", owner, buckets=buckets)
            for name, count in {**whole["owned"], "free": whole["free"]}.items():
                tf.summary.scalar(f"share/{name}", count / whole["total"])
            writer.flush()

    def _writer(self, task: str) -> tf.summary.SummaryWriter:
        assert self._directory is not None
        if task not in self._writers:
            folder = str(self._directory / task)
            self._writers[task] = tf.summary.create_file_writer(folder)
        return self._writers[task]

    def _close(self, task: str) -> None:
        assert self._directory is not None
        with _writing(self._directory / task):
            self._writers.pop(task).close()

    @staticmethod
    def _write_epochs(folder: pathlib.Path, epochs: list[dict]) -> None:
        if not epochs:
            return
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        # A resumed run may measure what its first epochs did not, validation data for instance.
        columns = list(dict.fromkeys(name for epoch in epochs for name in epoch))
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(epochs)
        with replacing(folder / EPOCHS) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    """Turns TensorFlow's lines about a full disk into one sentence.

    Raises:
        OSError: the disk is full.
    """
    try:
        yield
    except tf.errors.OpError as error:
        full = [number for number in FULL if os.strerror(number) in error.message]
        if not full:
            raise
        found = OSError(
            f"Cannot write TensorBoard's files to '{folder}': {os.strerror(full[0])}. Make room "
            "there and try again."
        )
        found.errno = full[0]
        raise found from error
