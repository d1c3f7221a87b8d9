"""Progress on the screen: a bar per task and phase, a line per epoch."""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator

import rich.console
import rich.progress

from packnet_tf.backend.text import printable


class Screen:
    """Prints progress, with a bar on terminals and without one to files and pipes.

    Args:
        shown: False prints nothing; workers that are not the chief use it.
    """

    def __init__(self, shown: bool) -> None:
        self._console = rich.console.Console(quiet=not shown, highlight=False, soft_wrap=True)
        self._bar: rich.progress.Progress  # set by `open`
        self._line: rich.progress.TaskID  # the bar's current phase, set by `begin_epoch`
        self._phase: tuple[str, str] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Shows the bar within the block, if the output is a terminal."""
        columns = [
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("steps, {task.fields[rate]}"),
            rich.progress.TimeRemainingColumn(),
        ]
        self._bar = rich.progress.Progress(
            *columns, console=self._console, disable=not self._console.is_terminal
        )
        self._phase = None
        with self._bar:
            yield

    def begin_epoch(
        self, task: str, phase: str, epochs_left: int | None, steps: int | None
    ) -> None:
        """Extends the bar of a task's phase, or creates it.

        Args:
            task: the task's name.
            phase: "training" or "retraining".
            epochs_left: epochs of this phase still to run, including this one; None if unknown.
            steps: steps in this epoch; None if unknown.
        """
        total = steps * epochs_left if steps and epochs_left else None
        if self._phase != (task, phase):
            self._phase = (task, phase)
            self._line = self._bar.add_task(f"{task}, {phase}", total=total, rate="")
        elif total is not None:
            done = self._bar.tasks[self._line].completed
            self._bar.update(self._line, total=done + total)

    def steps(self, count: int) -> None:
        """Advances the bar by a number of steps."""
        speed = self._bar.tasks[self._line].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._bar.update(self._line, advance=count, rate=rate)

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._console.print(printable(text, keep="\n"), markup=False)


def epoch_line(task: str, row: dict, epochs: int | None) -> str:
    """Formats the line for an epoch: its number, loss, accuracies and speed."""
    of = f"/{epochs}" if epochs else ""
    numbers = {
        name: value
        for name, value in row.items()
        if name == "loss" or name.startswith("val_") or "acc" in name
    }
    text = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
    return (
        f"{task}, {row['phase']}, epoch {row['epoch'] + 1}{of}: {text}  sparsity "
        f"{row['sparsity']:.3f}  {row['examples_per_second']:.0f} examples/s"
    )


def typed_command() -> str:
    """Returns the command line that continues this process, as short as it was typed.

    A command on the PATH goes by its name, and no command by the interpreter that runs it. Without
    `--fresh` of `packnet train`, which would delete what is to be continued.
    """
    typed, given = ([a for a in each if a != "--fresh"] for each in (sys.orig_argv, sys.argv))
    script, name = given[0], os.path.basename(given[0])
    found = shutil.which(name)
    if found is not None and os.path.exists(script) and os.path.samefile(found, script):
        return shlex.join([name, *given[1:]])
    # The system runs a script by the absolute path of the interpreter that its first line names.
    by_itself = os.path.isabs(typed[0]) and os.access(script, os.X_OK)
    if by_itself and not script.endswith(".py"):
        return shlex.join(given)
    return shlex.join(typed)
