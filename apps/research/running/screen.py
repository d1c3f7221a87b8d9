"""The progress display of the runs: bars in a terminal, plain lines in a file or a pipe."""

import contextlib
import pathlib
from collections.abc import Iterator

import rich.console
import rich.progress

from packnet_tf.backend.text import printable

TAIL = 4096  # bytes at the end of a log to search for its last line
WIDTH = 60  # characters of this line to show


class Screen:
    """Prints messages, with progress bars in a terminal.

    Args:
        total: number of runs.
        done: number of runs with a result.
    """

    def __init__(self, total: int, done: int):
        self._console = rich.console.Console(highlight=False, soft_wrap=True)
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[state]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task(
            "runs", total=total, completed=done, state=f"{done}/{total}"
        )
        self._total = total
        self._busy: dict[str, rich.progress.TaskID] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator["Screen"]:
        """Draws progress bars within the block, in a terminal."""
        with self._bars:
            yield self

    def say(self, text: str) -> None:
        """Prints a line, above the bars if there are any."""
        self._console.print(printable(text, keep="\n"), markup=False)

    def began(self, key: str, title: str) -> None:
        """Shows a run that has begun."""
        self.say(f"Started   {title}  ({key})")
        self._busy[key] = self._bars.add_task(title, total=None, state="")

    def at(self, key: str, log: pathlib.Path) -> None:
        """Shows the progress of a run, which is the last line of its log."""
        if not self._bars.disable:
            self._bars.update(self._busy[key], state=printable(last_line(log)[:WIDTH]))

    def remove(self, key: str) -> None:
        """Removes a run from the display."""
        self._bars.remove_task(self._busy.pop(key))

    def done(self, count: int) -> None:
        """Shows how many runs have ended."""
        self._bars.update(self._all, completed=count, state=f"{count}/{self._total}")


def last_line(log: pathlib.Path) -> str:
    """Returns the last complete line of a log, if there is one; reads only the log's end."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:  # a job that waits for its turn has none
        return ""
    lines = [line for line in text.split("\n")[:-1] if line.strip()]
    return lines[-1].strip() if lines else ""
