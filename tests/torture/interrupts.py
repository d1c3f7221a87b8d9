"""Ctrl-C at every line, and before every assignment, of every verb."""

import functools
import pathlib
import pickle
import shutil
import tempfile
from collections.abc import Callable

import keras

import packnet_tf
from helpers.interrupting import interrupt
from helpers.pack_helpers import conv_trunk
from helpers.pictures import picture
from packnet_tf.export import export_all, export_onnx
from torture import subjects
from torture.outcome import ALIEN, DIFFERENT, WHOLE, Fault
from torture.tracing import spread

OWN = "pack.keras"  # in the folder of the attack; there it is a copy of the old pack


def _save(net: packnet_tf.PackNet, at: pathlib.Path) -> None:
    net.notes["more"] = "x"
    net.save(at / OWN)


Verb = Callable[[packnet_tf.PackNet, pathlib.Path], object]
# The pack that a verb begins with, and the verb.
VERBS: dict[str, tuple[str, Verb]] = {
    "add": (subjects.OLD, lambda net, at: net.add_task(subjects.NEXT, subjects.head())),
    "add, overlay": (
        subjects.OLD,
        lambda net, at: net.add_task(subjects.NEXT, subjects.head(), overlay=0.1),
    ),
    "prune": (subjects.OPEN, lambda net, at: net.prune(0.5)),
    "prune to": (subjects.OPEN, lambda net, at: net.prune_to(0.8)),
    "commit": (subjects.OPEN, lambda net, at: net.commit()),
    "discard": (subjects.OPEN, lambda net, at: net.discard()),
    "release": (subjects.NEW, lambda net, at: net.release(subjects.NEXT)),
    "release, overlay": (subjects.NEW, lambda net, at: net.release("three")),
    "adopt": ("", lambda net, at: net.adopt("base", 0.5, verbose=0)),
    "restore": (subjects.OLD, lambda net, at: net.restore(at / subjects.NEW)),
    "save": (OWN, _save),
    "load": ("", lambda net, at: packnet_tf.load(at / subjects.NEW)),
    "note": (subjects.OLD, lambda net, at: net.note_results("one", test=0.5)),
    "view": (subjects.OLD, lambda net, at: net.task_model("two")),
    "unpack": (subjects.OLD, lambda net, at: net.unpack("two")),
    "export": (subjects.NEW, lambda net, at: export_all(net, at / "files", verbose=False)),
    "export one": (
        subjects.NEW,
        lambda net, at: export_onnx(net, "one", at / "file" / "one.onnx", verbose=False),
    ),
}
# Exports take seconds, so they have fewer turns.
TURNS = [*[verb for verb in VERBS if not verb.startswith("export")] * 4, "export", "export one"]


def attack(seed: int, folder: pathlib.Path, originals: pathlib.Path) -> str:
    """Interrupts a verb at a point; seeds go through all points of every verb in turn."""
    name = TURNS[seed % len(TURNS)]
    before, after, size = _reference(name, originals)
    _files(folder, originals)
    net = _pack(VERBS[name][0], folder)
    keras.utils.set_random_seed(0)
    at = spread(seed // len(TURNS), size)
    where = interrupt(lambda: VERBS[name][1](net, folder), at)
    found = picture(net)
    if found not in (before, after):
        raise Fault(DIFFERENT, f"'{name}' at point {at}, {where}: {_differences(found, before)}")
    same = (folder / OWN).read_bytes() == (originals / subjects.OLD).read_bytes()
    if not same and subjects.look(folder / OWN, *_states(originals)) != WHOLE:
        raise Fault(ALIEN, f"'{name}' at point {at}, {where}: the file is refused")
    if name == "export":
        states = subjects.known(originals, *(f"{s}.files" for s in (subjects.OLD, subjects.NEW)))
        if subjects.look_at_files(folder / "files", *states) != WHOLE:
            raise Fault(ALIEN, f"'{name}' at point {at}, {where}: the export is refused")
    try:
        subjects.left_behind(folder)
        if name == "save":  # the lock is free, and nothing is taken for the work of others
            net.save(folder / OWN)
    except (Fault, OSError, RuntimeError) as error:
        raise Fault(ALIEN, f"'{name}' at point {at}, {where}: {error}") from None
    return WHOLE


@functools.cache
def _states(originals: pathlib.Path) -> list[subjects.Answers]:
    return subjects.known(originals, subjects.OLD, subjects.NEW)


def _reference(name: str, originals: pathlib.Path) -> tuple[dict, dict, int]:
    """Returns the pictures of a pack before and after a verb, and the number of its points.

    They are kept in a file for all processes to come.
    """
    kept = originals / f"{name}.reference"
    if not kept.exists():
        folder = pathlib.Path(tempfile.mkdtemp())
        aside = folder / "reference"
        aside.write_bytes(pickle.dumps(_measured(name, folder / "in", originals)))
        aside.replace(kept)
        shutil.rmtree(folder)
    return pickle.loads(kept.read_bytes())


def _measured(name: str, folder: pathlib.Path, originals: pathlib.Path) -> tuple[dict, dict, int]:
    for _ in range(2):  # in the first run, modules are imported
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _files(folder, originals)
        net = _pack(VERBS[name][0], folder)
        before = picture(net)
        keras.utils.set_random_seed(0)
        counted: list[int] = []
        interrupt(lambda net=net: VERBS[name][1](net, folder), None, counted)
    return before, picture(net), counted[0]


def _pack(state: str, folder: pathlib.Path) -> packnet_tf.PackNet:
    keras.utils.set_random_seed(1)
    return packnet_tf.load(folder / state) if state else packnet_tf.PackNet(conv_trunk())


def _files(folder: pathlib.Path, originals: pathlib.Path) -> None:
    for name in (subjects.OLD, subjects.NEW, subjects.OPEN):
        shutil.copy(originals / name, folder / name)
    shutil.copy(originals / subjects.OLD, folder / OWN)
    shutil.copytree(originals / f"{subjects.OLD}.files", folder / "files")


def _differences(found: dict, before: dict) -> str:
    return ", ".join(key for key in found if found[key] != before.get(key))
