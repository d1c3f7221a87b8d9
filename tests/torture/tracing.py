"""Stops a process before each system call that changes a file (Linux, by ptrace)."""

import ctypes
import math
import os
import pathlib
import signal
import sys
from types import TracebackType

SEIZE, INTERRUPT, CONTINUE, INFO = 0x4206, 0x4207, 24, 0x420E
MARK_CALLS, END_WITH_US = 1, 0x100000  # options
WAIT_FOR_ALL = 0x40000000
ENTRY = 1
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# What the first argument is: a descriptor or none; `openat` is told by its flags.
_CHANGES = {
    "x86_64": {
        "descriptor": {1, 18, 20, 77, 285, 296},  # write, pwrite64, writev, ftruncate, ...
        "path": {76, 82, 83, 84, 86, 87, 88, 90, 258, 263, 264, 265, 266, 268, 316},
        "openat": {257},
    },
    "aarch64": {
        "descriptor": {64, 66, 68, 46, 47, 70},
        "path": {34, 35, 36, 37, 38, 45, 53, 276},
        "openat": {56},
    },
}

_libc = ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether this system can be asked for the system calls of a process."""
    return sys.platform == "linux" and os.uname().machine in _CHANGES


def spread(number: int, size: int) -> int:
    """Returns a place in 0 to size - 1: `size` numbers in a row give all of them, mixed.

    Example:
        >>> sorted(spread(number, 10) for number in range(10)) == list(range(10))
        True
    """
    step = max(1, round(size * 0.618))
    while math.gcd(step, size) > 1:
        step += 1
    return number * step % size


class Tracer:
    """Follows a process until its block ends.

    Args:
        pid: the process; its first thread is followed.
        folder: only changes of files below it count.

    Raises:
        OSError: the system forbids it.
    """

    def __init__(self, pid: int, folder: pathlib.Path) -> None:
        self._pid, self._folder = pid, os.fspath(folder)
        changes = _CHANGES[os.uname().machine]
        self._descriptor, self._path = changes["descriptor"], changes["path"]
        self._open = changes["openat"]

    def __enter__(self) -> "Tracer":
        self._ask(SEIZE, 0, MARK_CALLS | END_WITH_US)
        self._ask(INTERRUPT)
        os.waitpid(self._pid, WAIT_FOR_ALL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            os.kill(self._pid, signal.SIGKILL)

    def run(self, at: int | None) -> int:
        """Lets the process run until it ends, or kills it before a call.

        Args:
            at: number of the call, from 0; None: all are let through.

        Returns:
            How many calls were let through.
        """
        found, deliver = 0, 0
        while True:
            self._ask(CONTINUE, 0, deliver)
            deliver = 0
            # Without reaping it: whoever has started it waits for it.
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | WAIT_FOR_ALL)
            try:
                state = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG | WAIT_FOR_ALL)
            except ChildProcessError:  # it has ended
                return found
            if state is None:
                return found
            if state.si_status != signal.SIGTRAP | 0x80:
                if state.si_status != signal.SIGTRAP:
                    deliver = state.si_status
                continue
            if self._changes():
                if found == at:
                    os.kill(self._pid, signal.SIGKILL)
                    return found
                found += 1

    def _changes(self) -> bool:
        """Whether the process is about to change a file."""
        info = (ctypes.c_uint64 * 12)()
        if self._ask(INFO, ctypes.sizeof(info), ctypes.addressof(info)) <= 0:
            return False
        if info[0] & 0xFF != ENTRY:
            return False
        call, first, third = info[3], info[4], info[6]
        if call in self._path:
            return True
        if call in self._open:
            return bool(third & WRITING)
        return call in self._descriptor and self._is_ours(first)

    def _is_ours(self, descriptor: int) -> bool:
        try:
            return os.readlink(f"/proc/{self._pid}/fd/{descriptor}").startswith(self._folder)
        except OSError:
            return False

    def _ask(self, request: int, where: int = 0, value: int = 0) -> int:
        call = _libc.ptrace
        call.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        call.restype = ctypes.c_long
        found = call(request, self._pid, where, value)
        if found < 0:
            number = ctypes.get_errno()
            if number != 3:  # it has ended
                raise OSError(number, os.strerror(number))
        return found
