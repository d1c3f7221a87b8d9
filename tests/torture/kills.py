"""Kills of a process that writes, at random or before a system call that changes a file."""

import pathlib
import random
import shutil
import signal
import time

import packnet_tf
from packnet_tf.export import export_all, export_bundle
from torture import subjects, tracing
from torture.outcome import ALIEN, LOST, REFUSED, WHOLE, Fault
from torture.processes import Resident, ended, fork

READY, GO = "ready", "go"
# A kill of an export takes ten times as long as one of a save, most of it before the export begins.
WRITERS = ("save", "save", "save", "save", "save", "save", "first save", "files", "bundle")


def write(what: str, folder: pathlib.Path, originals: pathlib.Path) -> None:
    """Writes the new pack, or its export, over the old one; waits until it may begin."""
    net = packnet_tf.load(originals / subjects.NEW)
    path = folder / "pack.keras"
    (folder.parent / "ready").touch()
    while (folder.parent / "ready").exists():  # until the one that kills is ready too
        time.sleep(0.001)
    if what.endswith("save"):
        net.save(path)
    elif what == "files":
        export_all(net, folder / what, verbose=False)
    else:
        export_bundle(net, folder / what, verbose=False)


def prepare(what: str, folder: pathlib.Path, originals: pathlib.Path) -> None:
    """Puts what is to be replaced into a folder."""
    if what == "save":
        shutil.copy(originals / subjects.OLD, folder / "pack.keras")
    elif what in subjects.FOLDERS:
        shutil.copytree(originals / f"{subjects.OLD}.{what}", folder / what)


def started(what: str, folder: pathlib.Path, originals: pathlib.Path):
    """Starts a process that is about to write."""
    prepare(what, folder, originals)
    process = fork(write, what, folder, originals)
    while not (folder.parent / "ready").exists():
        if not process.is_alive():
            raise Fault(ALIEN, f"the writer ended with status {process.exitcode}")
        time.sleep(0.002)
    return process


def let_go(folder: pathlib.Path) -> None:
    """Lets the process begin to write."""
    (folder.parent / "ready").unlink()


def drive(seed: int, folder: pathlib.Path, originals: pathlib.Path, resident: Resident) -> str:
    """Kills a writer at a random time of its work."""
    rng = random.Random(seed)
    what = rng.choice(WRITERS)
    process = started(what, folder, originals)
    let_go(folder)
    longest = 0.15 if what.endswith("save") else 5.0
    process.join(rng.random() * longest)
    if process.exitcode is None:
        process.kill()
        process.join()
    elif process.exitcode != 0:
        raise Fault(ALIEN, f"'{what}' ended with status {process.exitcode}")
    return resident.call("kills", "judge", what, folder, originals)


def judge(what: str, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Looks at what a killed process has left, and writes there again."""
    names = subjects.OLD, subjects.NEW
    path = folder / "pack.keras"
    if what.endswith("save"):
        states = subjects.known(originals, *names)
        if what == "first save" and not path.exists():
            outcome = WHOLE
        else:
            outcome = subjects.look(path, *states)
        if outcome == REFUSED:
            raise Fault(ALIEN, "a kill has damaged the pack")
        net = packnet_tf.load(path if path.exists() else originals / subjects.OLD)
        net.save(path)
        if packnet_tf.load(path).tasks != net.tasks:
            raise Fault(LOST, "the next save has lost tasks")
    else:
        states = subjects.known(originals, *(f"{name}.{what}" for name in names))
        outcome = subjects.look_at_files(folder / what, *states)
        if outcome == REFUSED:  # a kill between two files: the next export mends it
            net = packnet_tf.load(originals / subjects.NEW)
            subjects.FOLDERS[what](net, folder / what, verbose=False)
            if subjects.look_at_files(folder / what, states[1]) != WHOLE:
                raise Fault(ALIEN, "the next export has not mended the folder")
    if what.endswith("save") or outcome == REFUSED:
        subjects.left_behind(folder)
    return outcome


_counted: dict[str, int] = {}


def drive_at_calls(
    seed: int, folder: pathlib.Path, originals: pathlib.Path, resident: Resident
) -> str:
    """Kills a writer before its n-th system call that changes a file of the folder.

    Seeds go through all calls of every writer in turn.
    """
    what = WRITERS[seed % len(WRITERS)]
    if what not in _counted:  # once per process that drives
        scratch = folder / "counted"
        scratch.mkdir()
        (scratch / "in").mkdir()
        _counted[what] = _traced(what, scratch / "in", originals, None)
        shutil.rmtree(scratch)
        if not _counted[what]:
            raise Fault(ALIEN, f"'{what}' changes no file")
    at = tracing.spread(seed // len(WRITERS), _counted[what])
    _traced(what, folder, originals, at)
    return resident.call("kills", "judge", what, folder, originals)


def _traced(what: str, folder: pathlib.Path, originals: pathlib.Path, at: int | None) -> int:
    process = started(what, folder, originals)
    with tracing.Tracer(process.pid, folder) as tracer:
        let_go(folder)
        found = tracer.run(at)
    if ended(process) not in (0, -signal.SIGKILL):
        raise Fault(ALIEN, f"'{what}' ended with status {process.exitcode}")
    return found
