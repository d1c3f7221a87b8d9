"""What is seen of a run while it goes on: a bar per task and phase, a line per epoch."""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator

import rich.console
import rich.progress


class Screen:
    """Prints to a terminal with a bar, or to a file or a pipe without one.

    Args:
        shown: False: nothing at all, on workers that are not the chief for instance.
    """

    def __init__(self, shown: bool) -> None:
        self._console = rich.console.Console(quiet=not shown, highlight=False, soft_wrap=True)
        self._bar: rich.progress.Progress  # there while it is open
        self._line: rich.progress.TaskID  # of that bar, once a phase has begun
        self._phase: tuple[str, str] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Within it bars are drawn, in terminals."""
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
        """Continues the bar of a task's phase, or begins it.

        Args:
            epochs_left: in this phase, this one included, where that is known.
            steps: in this epoch, where that is known.
        """
        total = steps * epochs_left if steps and epochs_left else None
        if self._phase != (task, phase):
            self._phase = (task, phase)
            self._line = self._bar.add_task(f"{task}, {phase}", total=total, rate="")
        elif total is not None:
            done = self._bar.tasks[self._line].completed
            self._bar.update(self._line, total=done + total)

    def steps(self, count: int) -> None:
        """Notes that steps have been done."""
        speed = self._bar.tasks[self._line].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._bar.update(self._line, advance=count, rate=rate)

    def say(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        self._console.print(text, markup=False)


def epoch_line(task: str, row: dict, epochs: int | None) -> str:
    """What is said of an epoch: its place, loss, accuracies and speed."""
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
    """The command of this process, a script on the path by its name alone, as it was typed."""
    script = shutil.which(os.path.basename(sys.argv[0]))
    if script is not None and os.path.exists(sys.argv[0]) and os.path.samefile(script, sys.argv[0]):
        return shlex.join([os.path.basename(script), *sys.argv[1:]])
    return shlex.join(sys.orig_argv)
