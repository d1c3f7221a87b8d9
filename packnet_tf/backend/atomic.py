"""Atomic file writes: a file holds its old contents or its new ones, never a mixture."""

import contextlib
import errno
import os
import pathlib
import platform
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator

from packnet_tf.backend.types import AnyPath

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REMEDIES = {
    errno.ENAMETOOLONG: "Write a shorter name.",
    errno.EISDIR: "A folder has that name; write another one.",
    errno.EEXIST: "A part of its path is a file; write the name of a folder there.",
    errno.ENOTDIR: "A part of its path is a file; write the name of a folder there.",
}


@contextlib.contextmanager
def replacing(path: AnyPath) -> Iterator[pathlib.Path]:
    """Yields a temporary path that replaces `path` when the block succeeds.

    The temporary file is in the same folder. It is flushed to disk before it replaces `path`, with
    its permissions. If `path` is a symbolic link, the file that it points to is replaced. If the
    block raises, the temporary file is removed and `path` is unchanged; if the process is killed,
    the next write in the folder removes it.

    Args:
        path: the file to write; missing folders are created.

    Raises:
        OSError: the file cannot be written, since the disk is full for instance; the message names
            `path`.

    Example:
        >>> with replacing("manifest.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = pathlib.Path(path)
    if os.path.islink(path):
        path = path.resolve()
    # The temporary name ends like the name: savers look at the suffix.
    temporary = path.with_name(f"{own_prefix()}{secrets.token_hex(4)}{''.join(path.suffixes)}")
    try:
        try:
            mode = _made(temporary, path)
            if mode is not None:
                temporary.chmod(mode)
            uncache(path)
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
        except OSError as error:
            where = pathlib.Path(error.filename or temporary).absolute()
            if error.errno not in {*FULL, *_REMEDIES} or (
                path.parent.absolute() not in where.parents
            ):
                raise
            raise _cannot_write(path, error) from error
        finally:
            _remove(temporary)
    finally:  # Ctrl-C may have come before the first one was over
        _remove(temporary)


def _made(temporary: pathlib.Path, path: pathlib.Path) -> int | None:
    """Makes a file that replaces another one; returns the permissions of that, if there is one.

    Raises:
        OSError: it cannot be made, in a read-only folder for instance; the message names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_dead(path.parent)
        mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
        private = 0o666 if mode is None else 0o600  # until it has the permissions of the old file
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, private))
    except OSError as error:
        raise _cannot_write(path, error) from error
    return mode


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _cannot_write(path: pathlib.Path, error: OSError) -> OSError:
    number = error.errno or 0
    room = "Make room there and try again; what it held before is unchanged."
    remedy = room if number in FULL else _REMEDIES.get(number, "Name another folder.")
    found = type(error)(f"Cannot write '{path}': {os.strerror(number)}. {remedy}")
    found.errno = number
    return found


def own_prefix() -> str:
    """Returns what the names of this process's temporary files and folders begin with."""
    return f"{_host_prefix()}{os.getpid()}-"


def remove_dead(folder: pathlib.Path) -> None:
    """Removes temporary files and folders of processes of this computer that have ended.

    Args:
        folder: the folder to look in, without its subfolders.
    """
    begin = _host_prefix()
    for path in folder.glob(f"{begin}*"):
        number = path.name.removeprefix(begin).partition("-")[0]
        if not number.isdecimal() or _is_alive(int(number)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _host_prefix() -> str:
    # On a shared drive, the number of a process says nothing about those of other computers.
    return f".writing-{zlib.crc32(platform.node().encode()):08x}-"


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there, os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        return True
    return True


def uncache(path: pathlib.Path) -> None:
    """Drops a file's contents from the system's page cache.

    The old file stays on disk until the new one is written, so both would be cached. On a virtual
    machine, getting more memory from the host can take longer than the write; see
    docs/measured/performance.md.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def flush(path: pathlib.Path) -> None:
    """Waits until a file's contents, or a folder's entries, are on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # some systems cannot open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
