"""Executes runs, several at once; skips finished runs and survives failed ones.

Several commands may share the folder of the runs: each takes those that nobody is at work on.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

from packnet_tf.apps.research.running.engines import LOG, Engine, Handle
from packnet_tf.apps.research.running.screen import Screen
from packnet_tf.apps.research.running.worker import BUSY, ERROR, RESULT, RUN, alone
from packnet_tf.apps.research.runs import Run
from packnet_tf.backend.atomic import replacing

POLL = 0.5  # seconds
LOOK = 5.0  # seconds until a run that another command is at work on is looked at again


@dataclasses.dataclass
class Outcome:
    """The outcome of the runs.

    Attributes:
        done: number of runs with a result.
        cached: number of these that had one before.
        failed: error messages by key of the run.
    """

    done: int = 0
    cached: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)


def work_off(runs: Sequence[Run], folder: pathlib.Path, engine: Engine) -> Outcome:
    """Executes every run that has no result yet, each in the folder of its key.

    Args:
        runs: the runs, without duplicates.
        folder: folder of all runs.
        engine: what executes them.

    Returns:
        The outcome; a run that fails does not stop the others.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the workers have ended; the next call continues.
    """
    waiting = [run for run in runs if not (folder / run.key / RESULT).exists()]
    cached = len(runs) - len(waiting)
    with Screen(len(runs), cached).open() as screen:
        if cached:
            screen.say(f"{cached} of {len(runs)} runs are done already.")
        queue = _Queue(folder, engine, screen, len(runs), waiting, Outcome(cached, cached))
        try:
            while queue.step():
                time.sleep(POLL)
        finally:
            queue.stop()
    return queue.outcome


@dataclasses.dataclass
class _Work:
    """A run that this command is at work on."""

    run: Run
    handle: Handle
    began: float = dataclasses.field(default_factory=time.monotonic)


class _Queue:
    def __init__(
        self,
        folder: pathlib.Path,
        engine: Engine,
        screen: Screen,
        total: int,
        waiting: list[Run],
        outcome: Outcome,
    ) -> None:
        self._folder, self._engine, self._screen, self._total = folder, engine, screen, total
        self._waiting, self.outcome = waiting, outcome
        self._busy: dict[str, _Work] = {}
        self._look: dict[str, float] = {}  # when to look at a run of another command again

    def step(self) -> bool:
        """Starts what can be started and records what has ended; returns whether runs are left."""
        for run in list(self._waiting):
            if len(self._busy) >= self._engine.jobs:
                break
            if time.monotonic() >= self._look.get(run.key, 0.0):
                self._take(run)
        for key, work in list(self._busy.items()):
            self._screen.at(key, self._folder / key / LOG)
            status = work.handle.poll()
            if status is not None:
                del self._busy[key]
                self._screen.left(key)
                self._ended(work, status)
        return bool(self._waiting or self._busy)

    def stop(self) -> None:
        """Ends all workers."""
        for work in self._busy.values():
            work.handle.stop()
        for work in self._busy.values():
            work.handle.wait()

    def _take(self, run: Run) -> None:
        """Starts a run, unless another command is at work on it or has finished it."""
        folder = self._folder / run.key
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder) as free:
            if (folder / RESULT).exists():
                self._waiting.remove(run)
                self._finished(run, "by another command")
                return
            if free:
                (folder / ERROR).unlink(missing_ok=True)
                with replacing(folder / RUN) as temporary:
                    run.write(temporary)
        if not free:
            self._leave(run)
            return
        self._waiting.remove(run)
        self._busy[run.key] = _Work(run, self._engine.start(folder))
        self._screen.began(run.key, run.title)

    def _leave(self, run: Run) -> None:
        """Leaves a run to another command, and looks at it again later."""
        if run.key not in self._look:
            self._screen.say(f"Elsewhere {run.title}  ({run.key})")
        self._look[run.key] = time.monotonic() + LOOK

    def _ended(self, work: _Work, status: int) -> None:
        folder, run = self._folder / work.run.key, work.run
        seconds = f"{time.monotonic() - work.began:.0f} s"
        if (folder / RESULT).exists():
            self._finished(run, seconds)
        elif status == BUSY:  # another command was faster
            self._waiting.append(run)
            self._leave(run)
        else:
            error = (folder / ERROR).read_text("utf-8") if (folder / ERROR).exists() else ""
            self.outcome.failed[run.key] = error = error or work.handle.reason()
            self._say(f"FAILED    {run.title}", seconds)
            self._screen.say(f"          {error}\n          its log: {folder / LOG}")

    def _finished(self, run: Run, how: str) -> None:
        self.outcome.done += 1
        self._say(f"Finished  {run.title}", how)

    def _say(self, text: str, how: str) -> None:
        count = self.outcome.done + len(self.outcome.failed)
        self._screen.say(f"{text}  ({count} of {self._total}, {how})")
        self._screen.done(count)
