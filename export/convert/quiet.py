"""Keeps notices of TensorFlow and tf2onnx from the terminal."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

# TensorFlow's native code writes its notices and warnings to stderr, in this form.
_NATIVE = re.compile(
    rb"[IW]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ \S+:\d+\] .*\n|WARNING: All log messages .*\n"
)
_LOCK = threading.RLock()  # stderr belongs to the whole process


@contextlib.contextmanager
def quiet_tools() -> Iterator[None]:
    """Drops what TensorFlow logs below errors within the block, and all that tf2onnx logs.

    The errors of tf2onnx are those that it raises, or operators that are refused afterwards. All
    else that is written to stderr meanwhile appears at the end of the block.
    """
    with (
        _LOCK,
        _least("tensorflow", logging.ERROR),
        _least("tf2onnx", logging.CRITICAL),
        _native_errors_only(),
    ):
        yield


@contextlib.contextmanager
def _least(name: str, level: int) -> Iterator[None]:
    """Raises the level of a logger within the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(max(before, level))
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _native_errors_only() -> Iterator[None]:
    """Filters the file descriptor: the level of native logs is fixed when TensorFlow starts."""
    try:
        kept = os.dup(2)
    except OSError:  # the process has no stderr
        yield
        return
    _flush()
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, 2)
            os.close(kept)
            aside.seek(0)
            rest = _NATIVE.sub(b"", aside.read())
            if rest:
                os.write(2, rest)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
