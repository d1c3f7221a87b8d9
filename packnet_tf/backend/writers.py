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
from typing import TypeAlias

from packnet_tf.backend.types import AnyPath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.05  # seconds between two looks at a lock
_TAKEN = (errno.EAGAIN, errno.EACCES)

# What a file is: its time in ns, its size in bytes and its number on the disk.
Stamp: TypeAlias = tuple[int, int, int]

# What threads hold: a function that holds a file may call another one that does.
_held: set[tuple[int, pathlib.Path]] = set()

# By owner and path: the stamp of the file as it was read or written, see `mark_current`.
_current: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


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
    if fcntl is None or key in _held:
        yield
        return
    lock = whole.with_name(f".{whole.name}.lock")
    descriptor = _locked(lock, path, time.monotonic() + wait)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        if descriptor is not None:
            lock.unlink(missing_ok=True)  # while it is locked, so that nobody's lock is removed
            os.close(descriptor)


def _locked(lock: pathlib.Path, path: AnyPath, until: float) -> int | None:
    """Returns the descriptor of the locked file; None where the system cannot lock it."""
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # there is no such folder, or it is read-only: writing the file will say so
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 20).decode(errors="replace")
            os.close(descriptor)
            if error.errno not in _TAKEN:
                return None
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
            return descriptor
        os.close(descriptor)  # the process that held it has removed it since


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


def is_current(owner: object, path: AnyPath) -> bool:
    """Returns whether a file is still the one that was read into an object or written from it.

    Args:
        owner: the object; it may have changed since.
        path: the file.
    """
    found = stamp(path)
    return found is not None and found == _current.get(owner, {}).get(pathlib.Path(path).resolve())


def is_changed(owner: object, path: AnyPath) -> bool:
    """Returns whether a file that an object was read from or written to has another content now.

    Args:
        owner: the object.
        path: the file.
    """
    known = pathlib.Path(path).resolve() in _current.get(owner, {})
    return known and stamp(path) is not None and not is_current(owner, path)
