"""The command line of the attacks, and the processes that make them."""

import argparse
import dataclasses
import gc
import importlib
import itertools
import multiprocessing
import os
import pathlib
import platform
import resource
import signal
import tempfile
import time
import traceback
from typing import Any

from torture import tracing
from torture.outcome import ALIEN, FAULTS, OUTSIDE, Counts, Fault, table
from torture.processes import Resident, Scratch, ended, fork


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of attack.

    Attributes:
        module: its module in this package.
        share: of the time, relative to the others.
        function: what makes one attack. One that begins with `drive` starts processes and gets a
            `Resident`; others run in one.
    """

    module: str
    share: float
    function: str = "attack"

    @property
    def drives(self) -> bool:
        """Whether the attack starts processes."""
        return self.function.startswith("drive")


KINDS = {
    "kills": Kind("kills", 18, "drive"),
    "system calls": Kind("kills", 18, "drive_at_calls"),
    "mutations": Kind("mutations", 17),
    "interrupts": Kind("interrupts", 20),
    "sequences": Kind("sequences", 22),
    "writers": Kind("writers", 2, "drive"),
    "readers": Kind("readers", 1, "drive"),
    "full disk": Kind("full_disk", 2),
}


def main(argv: list[str] | None = None) -> int:
    """Runs attacks until the time is over; returns 1 if one has found a fault."""
    flags = _flags(argv)
    kinds = [name for name in KINDS if not flags.only or name in flags.only]
    if not tracing.available() and "system calls" in kinds:
        kinds.remove("system calls")
        print("Left out: 'system calls', which needs Linux on x86-64 or aarch64.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left then either
    begun = time.monotonic()
    _import_all()
    with tempfile.TemporaryDirectory(prefix="torture-") as made:
        work = pathlib.Path(made)
        os.environ["TMPDIR"] = tempfile.tempdir = os.fspath(_folder(work / "temporary"))
        originals = _folder(work / "originals")
        process = fork(importlib.import_module("torture.subjects").make, originals)
        if ended(process):
            raise RuntimeError("The packs to attack could not be made.")
        counts = {name: Counts() for name in kinds}
        workers = [_started(flags, kinds, job, work, originals) for job in range(flags.jobs)]
        try:
            _collect([pipe for _, pipe in workers], counts)
            for worker, _ in workers:
                worker.join()
                if worker.exitcode:
                    raise RuntimeError(f"A process ended with status {worker.exitcode}.")
        finally:  # after Ctrl-C
            for worker, _ in workers:
                worker.terminate()
                worker.join()
    print(_summary(flags, counts, (time.monotonic() - begun) / 60))
    untried = [name for name, count in counts.items() if not count.tried]
    if untried:
        print(f"Not tried: {', '.join(untried)}.")
    return 1 if untried or any(count.faults for count in counts.values()) else 0


def _started(
    flags: Any, kinds: list[str], job: int, work: pathlib.Path, originals: pathlib.Path
) -> tuple[Any, Any]:
    """Starts a process that attacks; returns it and the pipe on which it reports."""
    ours, theirs = multiprocessing.Pipe()
    seeds = {kind: itertools.count(flags.seed + job, flags.jobs) for kind in kinds}
    last = flags.seed + flags.attacks if flags.attacks else None
    until = time.monotonic() + 60 * flags.minutes
    arguments = (theirs, seeds, last, until, _folder(work / f"job{job}"), originals)
    # No daemon: it has children of its own.
    worker = multiprocessing.get_context("fork").Process(target=_work, args=arguments)
    worker.start()
    theirs.close()
    return worker, ours


def _summary(flags: Any, counts: dict[str, Counts], minutes: float) -> str:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(each.ru_utime + each.ru_stime for each in used) / 60
    each = [f"{kind} {c.seconds / max(c.tried, 1):.2f}" for kind, c in counts.items()]
    return (
        f"\n{table(counts)}\n\n{minutes:.0f} minutes, {processor:.0f} of processor time; "
        f"{platform.system()} {platform.machine()}, {flags.jobs} jobs, seeds from {flags.seed}.\n"
        f"Seconds for one: {', '.join(each)}."
    )


def _flags(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    flag = parser.add_argument
    flag("--minutes", type=float, default=5.0, help="how long to attack; default 5")
    flag("--seed", type=int, default=0, help="number of the first attack of each kind; default 0")
    flag("--attacks", type=int, help="how many of each kind at most")
    flag("--only", action="append", choices=KINDS, help="a kind of attack; may be repeated")
    flag("--jobs", type=int, default=2, help="how many at a time; default 2")
    return parser.parse_args(argv)


def _import_all() -> None:
    """Imports what attacks need, so that the processes to come have it from the start."""
    for module in ("subjects", *{kind.module for kind in KINDS.values()}):
        importlib.import_module(f"torture.{module}")
    for module in ("tf2onnx.tf_loader", "onnx.checker", "packnet_tf.export.task_graph"):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is here is not looked at in every process again


def _folder(path: pathlib.Path) -> pathlib.Path:
    path.mkdir()
    return path


def _collect(pipes: list[Any], counts: dict[str, Counts]) -> None:
    """Counts what the processes report, and prints faults, until all have ended."""
    while pipes:
        for pipe in multiprocessing.connection.wait(pipes):
            try:
                name, seed, outcome, text, seconds = pipe.recv()
            except EOFError:
                pipes.remove(pipe)
                continue
            counts[name].add(outcome, seconds)
            if outcome in FAULTS:
                print(
                    f"\n{outcome} [{name}]: {text}\n  python -m tests.torture --only='{name}' "
                    f"--seed={seed} --attacks=1",
                    flush=True,
                )


def _work(
    pipe: Any,
    seeds: dict[str, Any],
    last: int | None,
    until: float,
    work: pathlib.Path,
    originals: pathlib.Path,
) -> None:
    """Makes attacks, of each kind one, then of the one with the least time for its share."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resident, spent = Resident(), dict.fromkeys(seeds, 0.0)
    while spent and (time.monotonic() < until or not all(spent.values())):
        name = min(spent, key=lambda kind: spent[kind] / KINDS[kind].share)
        seed = next(seeds[name])
        if last is not None and seed >= last:
            del spent[name]
            continue
        began = time.monotonic()
        outcome, text = _attacked(KINDS[name], seed, work, originals, resident)
        seconds = time.monotonic() - began
        spent[name] += seconds
        pipe.send((name, seed, outcome, text, seconds))
    resident.end()


def _attacked(
    kind: Kind, seed: int, work: pathlib.Path, originals: pathlib.Path, resident: Resident
) -> tuple[str, str]:
    scratch = Scratch(work)
    try:
        if kind.drives:
            function = getattr(importlib.import_module(f"torture.{kind.module}"), kind.function)
            outcome = function(seed, scratch.path, originals, resident)
        else:
            outcome = resident.call(kind.module, kind.function, seed, scratch.path, originals)
        changed = scratch.outside()
        if changed:
            raise Fault(OUTSIDE, changed)
        return outcome, ""
    except Fault as fault:
        return fault.kind, fault.text
    except Exception:  # of the attack itself
        return ALIEN, traceback.format_exc()
    finally:
        scratch.remove()
