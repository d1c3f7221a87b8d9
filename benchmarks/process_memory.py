"""Memory of this process, as Linux counts it."""

import ctypes
import pathlib
from typing import NamedTuple


class Memory(NamedTuple):
    """Memory of a process, in bytes.

    Attributes:
        own: resident memory of the process alone, without mapped files.
        resident: all resident memory, mapped files included.
        peak: the peak of `resident` since the start or the last `restart_peak`.
    """

    own: int
    resident: int
    peak: int


def memory() -> Memory:
    """Returns the current memory of this process."""
    text = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    values = dict(line.split(":", 1) for line in text.splitlines())
    return Memory(*(1024 * int(values[key].split()[0]) for key in ("RssAnon", "VmRSS", "VmHWM")))


def restart_peak() -> None:
    """Resets `Memory.peak` to the current resident memory.

    What the C library holds of freed memory goes first: whatever fits there would count as nothing.
    """
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if release is not None:
        release(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
