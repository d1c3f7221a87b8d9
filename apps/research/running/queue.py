"""Executes runs, several at once; skips finished runs and survives failed ones.

Several commands may share the folder of the runs: each takes those that nobody is at work on.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

from packnet_tf.apps.research.running.engines import LOG, Engine, Handle
from packnet_tf.apps.research.running.screen import Screen
from packnet_tf.apps.research.running.worker import BUSY, ERROR, RESULT, RUN
from packnet_tf.apps.research.runs import Run
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.writers import locked

POLL = 0.5  # seconds
AGAIN = 5.0  # seconds until a run that another command is at work on is looked at again


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
        self._room = engine.jobs  # how many the engine takes at once, for now
        # Of runs that another command is at work on: when to look at them again.
        self._elsewhere: dict[str, float] = {}

    def step(self) -> bool:
        """Starts what can be started and records what has ended; returns whether runs are left."""
        for run in list(self._waiting):
            if len(self._busy) >= self._room:
                break
            if time.monotonic() >= self._elsewhere.get(run.key, 0.0):
                self._take(run)
        for key, work in list(self._busy.items()):
            self._screen.at(key, self._folder / key / LOG)
            status = work.handle.poll()
            if status is not None:
                del self._busy[key]
                self._room = self._engine.jobs
                self._screen.remove(key)
                self._ended(work, status)
        return bool(self._waiting or self._busy)

    def stop(self) -> None:
        """Ends all workers."""
        for work in self._busy.values():
            work.handle.stop()
        for work in self._busy.values():
            work.handle.wait()

    def _take(self, run: Run) -> None:
        """Starts a run, unless another command is at work on it or has settled it."""
        folder = self._folder / run.key
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder / RUN):
                if self._is_settled(run, folder):
                    self._waiting.remove(run)
                    return
                (folder / ERROR).unlink(missing_ok=True)
                with replacing(folder / RUN) as temporary:
                    run.write(temporary)
        except BlockingIOError:
            self._leave(run)
            return
        try:
            handle = self._engine.start(folder)
        except Exception:
            if not self._busy:
                raise
            self._room = len(self._busy)  # a cluster may take another when one has ended
            return
        self._waiting.remove(run)
        self._busy[run.key] = _Work(run, handle)
        self._screen.began(run.key, run.title)

    def _is_settled(self, run: Run, folder: pathlib.Path) -> bool:
        """Records a run that another command has finished, or has failed at just now."""
        if (folder / RESULT).exists():
            self._finished(run, "by another command")
            return True
        error = _error_in(folder) if run.key in self._elsewhere else None
        if error is not None:
            self._failed(run, error, "by another command")
        return error is not None

    def _leave(self, run: Run) -> None:
        if run.key not in self._elsewhere:
            self._screen.say(f"Elsewhere {run.title}  ({run.key}), another command has it")
        self._elsewhere[run.key] = time.monotonic() + AGAIN

    def _ended(self, work: _Work, status: int) -> None:
        folder, seconds = self._folder / work.run.key, f"{time.monotonic() - work.began:.0f} s"
        if (folder / RESULT).exists():
            self._finished(work.run, seconds)
        elif status == BUSY:  # another command was faster
            self._waiting.append(work.run)
            self._leave(work.run)
        else:
            self._failed(work.run, _error_in(folder) or work.handle.why_no_result(), seconds)

    def _finished(self, run: Run, how: str) -> None:
        self.outcome.done += 1
        self._say(f"Finished  {run.title}", how)

    def _failed(self, run: Run, error: str, how: str) -> None:
        self.outcome.failed[run.key] = error
        self._say(f"FAILED    {run.title}", how)
        self._screen.say(f"          {error}\n          its log: {self._folder / run.key / LOG}")

    def _say(self, text: str, how: str) -> None:
        count = self.outcome.done + len(self.outcome.failed)
        self._screen.say(f"{text}  ({count} of {self._total}, {how})")
        self._screen.done(count)


def _error_in(folder: pathlib.Path) -> str | None:
    """Returns the error that the last worker of a run has left; another one may remove it."""
    try:
        return (folder / ERROR).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
