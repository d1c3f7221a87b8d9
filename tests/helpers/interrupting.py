"""Ctrl-C at a point of a function.

It is raised in frames of this library alone, and not while TensorFlow is calling back: an exception
from a trace function there ends the interpreter, which no Ctrl-C does.
"""

import contextlib
import dis
import functools
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import packnet_tf
import packnet_tf.export

LIBRARY = tuple(str(pathlib.Path(m.__file__).parent) for m in (packnet_tf, packnet_tf.export))
CALLS_BACK = f"{pathlib.Path('site-packages') / 'tensorflow'}"


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
        if not frame.f_code.co_filename.startswith(LIBRARY):
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
