"""How much memory this process takes, as Linux counts it."""

import pathlib
from typing import NamedTuple


class Memory(NamedTuple):
    """Memory of a process, in bytes.

    Attributes:
        own: resident, and the process's alone: nothing that could be read from a file again.
        resident: all that is resident, mapped files included.
        peak: the most that was, since the start or the last `restart_peak`.
    """

    own: int
    resident: int
    peak: int


def memory() -> Memory:
    """The memory of this process now."""
    text = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    values = dict(line.split(":", 1) for line in text.splitlines())
    return Memory(*(1024 * int(values[key].split()[0]) for key in ("RssAnon", "VmRSS", "VmHWM")))


def restart_peak() -> None:
    """Lets `Memory.peak` count from what is resident now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
