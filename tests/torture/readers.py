"""Readers of an export that another process replaces, again and again."""

import pathlib
import random
import shutil

import packnet_tf
from packnet_tf.export import export_all, export_bundle
from torture import subjects
from torture.outcome import ALIEN, WHOLE, Fault
from torture.processes import Resident, ended, fork

EXPORTS = {"files": export_all, "bundle": export_bundle}


def replace(kind: str, path: pathlib.Path, originals: pathlib.Path) -> None:
    """Writes the export of the new pack, of the old one and of the new one."""
    for state in (subjects.NEW, subjects.OLD, subjects.NEW):
        EXPORTS[kind](packnet_tf.load(originals / state), path, verbose=False)
    (path.parent / "done").touch()


def drive(seed: int, folder: pathlib.Path, originals: pathlib.Path, resident: Resident) -> str:
    """Reads until the exports are over."""
    kind = random.Random(seed).choice(list(EXPORTS))
    path = folder / kind
    shutil.copytree(originals / f"{subjects.OLD}.{kind}", path)
    writer = fork(replace, kind, path, originals)
    outcome = resident.call("readers", "read", path, originals)
    if ended(writer):
        raise Fault(ALIEN, f"the export ended with status {writer.exitcode}")
    return outcome


def read(path: pathlib.Path, originals: pathlib.Path) -> str:
    """Opens the export as often as possible; in the end it must be whole."""
    names = (f"{state}.{path.name}" for state in (subjects.OLD, subjects.NEW))
    old, new = subjects.known(originals, *names)
    done = path.parent / "done"
    while not done.exists():
        subjects.look_at_files(path, old, new)
    if subjects.look_at_files(path, new) != WHOLE:
        raise Fault(ALIEN, "the export is refused when it is over")
    subjects.left_behind(path)
    return WHOLE
