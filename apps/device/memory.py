"""How much memory this process takes, as the operating system counts it."""

import dataclasses
import pathlib
import resource
import threading

_STATUS = pathlib.Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of a process, in bytes.

    Attributes:
        own: resident, and the process's alone: nothing that could be read from a file again.
        resident: all that is resident, mapped files included.
        peak: the most that was, since the start or the last `restart_peak`.
    """

    own: int
    resident: int
    peak: int


def memory() -> Memory | None:
    """The memory of this process now; None where the system does not tell (only Linux does)."""
    try:
        text = _STATUS.read_text(encoding="ascii")
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in text.splitlines())
    own, now, peak = (1024 * int(values[key].split()[0]) for key in ("RssAnon", "VmRSS", "VmHWM"))
    return Memory(own, now, peak)


def restart_peak() -> None:
    """Lets `Memory.peak` count from what is resident now, where the system allows it."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # then it counts from the start


class PeakMemory:
    """How far the resident memory of the process rises in a block, sampled every 5 ms.

    Attributes:
        grown: bytes, once the block has ended.
    """

    def __enter__(self):
        self._stop = threading.Event()
        self._base = self._peak = _resident()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        self.grown = self._peak - self._base


def _resident() -> int:
    """Bytes of resident memory now (Linux), or the most so far (elsewhere)."""
    now = memory()
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if now is None else now.resident
    )
