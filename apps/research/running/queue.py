"""Executes runs in processes, several at once; skips finished runs and survives failed ones."""

import collections
import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from packnet_tf.apps.research.running.screen import Screen
from packnet_tf.apps.research.running.worker import ERROR, RESULT, RUN
from packnet_tf.apps.research.runs import Run
from packnet_tf.backend.atomic import replacing

LOG = "log.txt"
POLL = 0.5  # seconds
KILLED = -9  # exit status of a process that the system killed


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


def work_off(runs: Sequence[Run], folder: pathlib.Path, jobs: int) -> Outcome:
    """Executes every run that has no result yet, each in the folder of its key.

    Args:
        runs: the runs, without duplicates.
        folder: folder of all runs.
        jobs: number of processes at once; they share the processors.

    Returns:
        The outcome; a run that fails does not stop the others.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once the processes have ended; the next call continues.
    """
    outcome, waiting = Outcome(), collections.deque()
    for run in runs:
        if (folder / run.key / RESULT).exists():
            outcome.cached += 1
        else:
            waiting.append(run)
    outcome.done = outcome.cached
    with Screen(len(runs), outcome.cached).open() as screen:
        if outcome.cached:
            screen.say(f"{outcome.cached} of {len(runs)} runs are done already.")
        _work_off(waiting, folder, jobs, len(runs), screen, outcome)
    return outcome


def _work_off(waiting, folder, jobs: int, total: int, screen: Screen, outcome: Outcome) -> None:
    busy: dict[str, _Process] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                run = waiting.popleft()
                busy[run.key] = _Process(run, folder / run.key, jobs)
                screen.began(run.key, run.title)
            time.sleep(POLL)
            for key, process in list(busy.items()):
                screen.at(key, process.folder / LOG)
                if process.ended:
                    del busy[key]
                    screen.ended(key)
                    _record_outcome(process, outcome, total, screen.say)
    finally:
        for process in busy.values():
            process.stop()


def _record_outcome(
    process: "_Process", outcome: Outcome, total: int, say: Callable[[str], None]
) -> None:
    error = process.error()
    if error is None:
        outcome.done += 1
    else:
        outcome.failed[process.run.key] = error
    count = outcome.done + len(outcome.failed)
    word = "Finished " if error is None else "FAILED   "
    say(f"{word} {process.run.title}  ({count} of {total}, {process.seconds:.0f} s)")
    if error is not None:
        say(f"          {error}\n          its log: {process.folder / LOG}")


class _Process:
    """A run in its own process, which writes to a log in its folder."""

    def __init__(self, run: Run, folder: pathlib.Path, jobs: int):
        self.run, self.folder = run, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR).unlink(missing_ok=True)
        with replacing(folder / RUN) as temporary:
            run.write(temporary)
        self._began = time.monotonic()
        with open(folder / LOG, "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "packnet_tf.apps.research.running.worker", str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(jobs),
            )  # fmt: skip

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def error(self) -> str | None:
        """Returns why there is no result, or None if there is one."""
        if (self.folder / RESULT).exists():
            return None
        if (self.folder / ERROR).exists():
            return (self.folder / ERROR).read_text(encoding="utf-8")
        status = self._process.returncode
        if status == KILLED:
            return (
                "the process was killed, for lack of memory most likely; use --jobs=1, a smaller "
                "batch_size, or cache: false"
            )
        return f"the process ended with status {status} and said nothing"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def _environment(jobs: int) -> dict[str, str]:
    """Returns variables that divide processors among processes, and let GPU memory grow."""
    if jobs == 1:
        return dict(os.environ)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    shared = {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    return {**os.environ, **shared}
