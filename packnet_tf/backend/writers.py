"""Files that several processes write: one at a time, and none over a change that it has not seen.

Locks are those of the operating system, which a process loses when it ends, in whatever way. Where
there are none (Windows, some network drives), files are written without.
"""

import contextlib
import errno
import os
import pathlib
import time
import weakref
from collections.abc import Iterator

from packnet_tf.backend.types import AnyPath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.05  # seconds between two looks at a lock
_TAKEN = (errno.EAGAIN, errno.EACCES)

# Paths that this process holds: a function that holds one may call another that does.
_held: set[pathlib.Path] = set()

# By owner and path: the file that it was last read from or written to, see `note`.
_noted: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def held(path: AnyPath, wait: float = 0.0) -> Iterator[None]:
    """Keeps other processes out of blocks for the same file.

    Args:
        path: the file. The lock is a hidden file beside it, which is removed at the end.
        wait: how many seconds to wait for another process.

    Raises:
        BlockingIOError: another process holds it; the message names that process.

    Example:
        >>> with held("pack.keras"):
        ...     net.save("pack.keras")
    """
    whole = pathlib.Path(path).resolve()
    if fcntl is None or whole in _held:
        yield
        return
    lock = whole.with_name(f".{whole.name}.lock")
    descriptor = _locked(lock, path, time.monotonic() + wait)
    _held.add(whole)
    try:
        yield
    finally:
        _held.discard(whole)
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
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)  # the process that held it has removed it since


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def note(owner: object, path: AnyPath) -> None:
    """Notes that a file has what an object has.

    Args:
        owner: the object.
        path: the file that was read into it, or written from it.
    """
    path = pathlib.Path(path).resolve()
    _noted.setdefault(owner, {})[path] = _stamp(path)


def is_noted(owner: object, path: AnyPath) -> bool:
    """Returns whether a file is still the one that was noted for an object.

    Args:
        owner: the object; it may have changed since.
        path: the file.
    """
    path = pathlib.Path(path).resolve()
    return path.exists() and _noted.get(owner, {}).get(path) == _stamp(path)


def is_changed(owner: object, path: AnyPath) -> bool:
    """Returns whether a file was noted for an object, and was then written by another one.

    Args:
        owner: the object.
        path: the file.
    """
    path = pathlib.Path(path).resolve()
    known = path in _noted.get(owner, {})
    return known and path.exists() and not is_noted(owner, path)


def _stamp(path: pathlib.Path) -> tuple[int, int]:
    found = path.stat()
    return (found.st_mtime_ns, found.st_size)
