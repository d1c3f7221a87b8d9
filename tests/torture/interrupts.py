"""Ctrl-C at a line, or before an assignment, of a verb.

The interrupt is raised in frames of this library alone, and not while TensorFlow is calling back:
an exception from a trace function there ends the interpreter, which no Ctrl-C does.
"""

import contextlib
import dis
import functools
import pathlib
import shutil
import sys
import types
from collections.abc import Callable
from typing import Any

import keras

import packnet_tf
from helpers.pack_helpers import conv_trunk
from helpers.pictures import picture
from packnet_tf.export import export_all, export_onnx
from torture import subjects
from torture.outcome import ALIEN, DIFFERENT, WHOLE, Fault
from torture.tracing import spread

LIBRARY = str(pathlib.Path(packnet_tf.__file__).parent)
EXPORT = str(pathlib.Path(packnet_tf.__file__).parents[1] / "export")
CALLS_BACK = f"{pathlib.Path('site-packages') / 'tensorflow'}"

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
    if subjects.look(folder / OWN, *_states(originals)) != WHOLE:
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


@functools.cache
def _reference(name: str, originals: pathlib.Path) -> tuple[dict, dict, int]:
    """Returns the pictures of a pack before and after a verb, and the number of its points."""
    folder = originals / f"reference of {name} in {id(_reference)}"
    for _ in range(2):  # in the first run, modules are imported
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _files(folder, originals)
        net = _pack(VERBS[name][0], folder)
        before = picture(net)
        keras.utils.set_random_seed(0)
        counted: list[int] = []
        interrupt(lambda net=net: VERBS[name][1](net, folder), None, counted)
    shutil.rmtree(folder)
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


def interrupt(verb: Callable[[], Any], at: int | None, counted: list[int] | None = None) -> str:
    """Runs a verb, interrupted at a point: a line, or the store of a value.

    Args:
        verb: what to run.
        at: number of the point, from 0; None: no interrupt.
        counted: gets the number of points.

    Returns:
        Where it was interrupted; empty if it was not.
    """
    points, where = 0, ""

    def reach(frame: types.FrameType) -> None:
        nonlocal points, where
        if not _may_raise(frame):
            return
        points += 1
        if points - 1 == at:
            sys.settrace(None)
            name = pathlib.Path(frame.f_code.co_filename).name
            where = f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"
            raise KeyboardInterrupt

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith((LIBRARY, EXPORT)):
            return None
        frame.f_trace_opcodes = True
        if event == "line" or (event == "opcode" and frame.f_lasti in _stores(frame.f_code)):
            reach(frame)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.redirect_stdout(None), contextlib.suppress(KeyboardInterrupt):
            verb()
    finally:
        sys.settrace(before)
    if counted is not None:
        counted.append(points)
    return where


@functools.cache
def _stores(code: types.CodeType) -> frozenset[int]:
    """Returns the places of a function's instructions that store a value."""
    return frozenset(i.offset for i in dis.get_instructions(code) if i.opname.startswith("STORE_"))


def _may_raise(frame: types.FrameType | None) -> bool:
    while frame is not None:
        if CALLS_BACK in frame.f_code.co_filename:
            return False
        frame = frame.f_back
    return True
