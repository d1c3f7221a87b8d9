"""Processes in which attacks run: one that stays, with TensorFlow, and ones that are killed.

A process in which TensorFlow has computed cannot be forked: its threads are missing in the child,
which then waits for them. So everything is forked from a process that has imported it and has
computed nothing.
"""

import importlib
import multiprocessing
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

from torture.outcome import ALIEN, HANG, MEMORY, Fault

PATIENCE = 600.0  # seconds until a process counts as one that hangs
MEMORY_BOUND = 300  # MiB that an attack may need
MEMORY_LIMIT = 2048  # MiB at which the system refuses more
CALLS = 400  # until the process that stays is replaced: traced functions stay in memory
_fork = multiprocessing.get_context("fork")


def fork(function: Callable[..., None], *arguments: Any) -> multiprocessing.Process:
    """Starts a process that calls a function, quietly, and ends."""
    process = _fork.Process(target=_quietly, args=(function, arguments), daemon=True)
    process.start()
    return process


def ended(process: multiprocessing.Process, patience: float = PATIENCE) -> int:
    """Waits for a process to end; returns its exit code.

    Raises:
        Fault: it hangs.
    """
    process.join(patience)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise Fault(HANG, f"a process did not end in {patience:.0f} s")
    return process.exitcode


class Resident:
    """A process that stays, to look at what attacks have left, and for attacks without kills."""

    def __init__(self) -> None:
        self._process: Any = None

    def call(self, module: str, function: str, *arguments: Any) -> Any:
        """Returns what a function of a module returns.

        Raises:
            Fault: the function has raised it, or another exception; or it hangs, needs too much
                memory or ends the process.
        """
        if self._process is None:
            self._pipe, theirs = _fork.Pipe()
            self._process = fork(_serve, theirs)
            theirs.close()
            self._calls = 0
        self._calls += 1
        try:
            self._pipe.send((module, function, arguments))
            if not self._pipe.poll(PATIENCE):
                self.end()
                raise Fault(HANG, f"{module}.{function} did not end in {PATIENCE:.0f} s")
            kind, value, peak = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self.end()
            raise Fault(ALIEN, f"the interpreter ended with status {code}") from None
        if self._calls >= CALLS:
            self.end()
        if kind is not None:
            raise Fault(kind, value)
        if peak > MEMORY_BOUND:
            raise Fault(MEMORY, f"{peak:.0f} MiB more at the peak than before")
        return value

    def end(self) -> None:
        """Ends the process; the next call starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _serve(pipe: Any) -> None:
    importlib.import_module("torture.subjects").warm()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + MEMORY_LIMIT * 2**20, hard))
    while True:
        try:
            module, function, arguments = pipe.recv()
        except EOFError:
            return
        before = _memory("VmRSS")
        _forget_peak()
        kind, value = None, None
        try:
            value = getattr(importlib.import_module(f"torture.{module}"), function)(*arguments)
        except Fault as fault:
            kind, value = fault.kind, fault.text
        except MemoryError:
            kind, value = MEMORY, "MemoryError"
        except BaseException as error:
            where = "".join(traceback.format_exception(error)[-4:])
            kind, value = ALIEN, f"{where[-1500:]}"
        pipe.send((kind, value, (_memory("VmHWM") - before) / 2**20))


def _memory(name: str) -> int:
    """Returns a size in bytes of this process, by its name in /proc/self/status."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}")


def _forget_peak() -> None:
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _quietly(function: Callable[..., None], arguments: tuple) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    status = 1
    try:
        function(*arguments)
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)


class Scratch:
    """A folder for one attack, with another one beside it that no attack may touch.

    Attributes:
        path: the folder.
    """

    def __init__(self, work: pathlib.Path) -> None:
        self._room = pathlib.Path(tempfile.mkdtemp(dir=work))
        self.path = self._room / "inside"
        self.path.mkdir()
        (self._room / "secret.bin").write_bytes(SECRET)

    def outside(self) -> str | None:
        """Returns what has changed beside the folder; None if nothing has."""
        found = sorted(path.name for path in self._room.iterdir())
        if found != ["inside", "secret.bin"]:
            return f"beside the folder are now {found}"
        if (self._room / "secret.bin").read_bytes() != SECRET:
            return "a file beside the folder has changed"
        return None

    def remove(self) -> None:
        """Removes both."""
        for _ in range(20):  # a process that was just killed may be about to make a last file
            shutil.rmtree(self._room, ignore_errors=True)
            if not self._room.exists():
                return
            time.sleep(0.05)


SECRET = bytes(range(256)) * 16
