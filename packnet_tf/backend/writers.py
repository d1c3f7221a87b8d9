"""Files that several processes write: one at a time, and none over a change that it has not seen.

Locks are those of the operating system, which a process loses when it ends, in whatever way. Where
there are none (Windows, some network drives), files are written without.
"""

import contextlib
import errno
import os
import pathlib
import threading
import time
import weakref
from collections.abc import Iterator
from typing import IO, TypeAlias

from packnet_tf.backend.types import AnyPath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.05  # seconds between two looks at a lock
_TAKEN = (errno.EAGAIN, errno.EACCES)

# What a file is: its time in ns, its size in bytes and its number on the disk.
Stamp: TypeAlias = tuple[int, int, int]

# What threads hold, as locked files: a function that holds a file may call another one that does.
_held: weakref.WeakValueDictionary[tuple[int, pathlib.Path], IO] = weakref.WeakValueDictionary()

# By owner and path: the stamp of the file as it was read or written, see `mark_current`; and of the
# last one that was to replace it, see `announce`.
_current: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_announced: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def locked(path: AnyPath, wait: float = 0.0) -> Iterator[None]:
    """Keeps other processes and threads out of blocks for the same file.

    Args:
        path: the file. The lock is a hidden file beside it, which is removed at the end.
        wait: how many seconds to wait for another one.

    Raises:
        BlockingIOError: another process or thread is in such a block; the message names it.

    Example:
        >>> with locked("pack.keras"):
        ...     net.save("pack.keras")
    """
    whole = pathlib.Path(path).resolve()
    key = threading.get_ident(), whole
    held = _held.get(key)
    if fcntl is None or (held is not None and not held.closed):
        yield
        return
    lock, opened = whole.with_name(f".{whole.name}.lock"), list[IO]()
    try:
        try:
            _wait_for(lock, path, time.monotonic() + wait, opened)
            if opened:
                _held[key] = opened[0]
            yield
        finally:
            _release(lock, opened)
    finally:  # Ctrl-C may have come before the first one was over
        _release(lock, opened)


def _wait_for(lock: pathlib.Path, path: AnyPath, until: float, opened: list[IO]) -> None:
    """Locks a file, which is the last of `opened` then; does nothing where the system cannot.

    Files, unlike their descriptors, close themselves if an interrupt comes before they are listed.
    """
    while True:
        try:
            opened[:] = [open(lock, "r+b", opener=_created)]  # noqa: SIM115
        except OSError:  # there is no such folder, or it is read-only: writing the file will say so
            return
        descriptor = opened[0].fileno()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode(errors="replace")
            opened.clear()
            if error.errno not in _TAKEN:
                return
            if time.monotonic() >= until:
                raise BlockingIOError(
                    f"'{path}' is in use by another process ({holder or 'unknown'}), which may be "
                    "training a task for it. Wait until that process has ended, then repeat this."
                ) from error
            time.sleep(_PAUSE)
            continue
        if _is_at(descriptor, lock):
            with contextlib.suppress(OSError):  # the disk is full: then nobody knows who holds it
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
            return
        opened.clear()  # the process that held it has removed it since


def _created(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _release(lock: pathlib.Path, opened: list[IO]) -> None:
    """Unlocks a file; removes the lock if nobody holds it. May be repeated."""
    for file in opened:
        file.close()
    with contextlib.suppress(OSError), open(lock, "r+b") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(file.fileno(), lock):
            lock.unlink()


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def stamp(path: AnyPath) -> Stamp | None:
    """Returns what tells a file from the next one of its name; None if there is no file."""
    try:
        found = pathlib.Path(path).stat()
    except FileNotFoundError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def mark_current(owner: object, path: AnyPath, found: Stamp | None) -> None:
    """Remembers that an object has what is in a file.

    Args:
        owner: the object.
        path: the file that was read into it, or written from it.
        found: the file's `stamp`: before it was read, so that a later change is noticed, or after
            it was written.
    """
    _current.setdefault(owner, {})[pathlib.Path(path).resolve()] = found


def announce(owner: object, path: AnyPath, new: AnyPath) -> None:
    """Remembers that a new file, written from an object, is about to replace another one.

    An interrupt may come after that, and before `mark_current`.

    Args:
        owner: the object.
        path: the file to be replaced.
        new: the file that will replace it.
    """
    _announced.setdefault(owner, {})[pathlib.Path(path).resolve()] = stamp(new)


def is_current(owner: object, path: AnyPath) -> bool:
    """Returns whether a file is still the one that was read into an object or written from it.

    Args:
        owner: the object; it may have changed since.
        path: the file.
    """
    found, whole = stamp(path), pathlib.Path(path).resolve()
    known = (marks.get(owner, {}).get(whole) for marks in (_current, _announced))
    return found is not None and found in known


def is_changed(owner: object, path: AnyPath) -> bool:
    """Returns whether a file that an object was read from or written to has another content now.

    Args:
        owner: the object.
        path: the file.
    """
    known = pathlib.Path(path).resolve() in _current.get(owner, {})
    return known and stamp(path) is not None and not is_current(owner, path)
