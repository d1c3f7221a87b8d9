"""Atomic file writes: a file holds its old contents or its new ones, never a mixture."""

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator

from packnet_tf.backend.types import AnyPath

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def replacing(path: AnyPath) -> Iterator[pathlib.Path]:
    """Yields a temporary path that replaces `path` when the block succeeds.

    The temporary file is in the same folder. It is flushed to disk before it replaces `path`. If
    the block raises, the temporary file is removed and `path` is unchanged.

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
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name ends in the full name: savers look at the suffix.
    try:
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=f"-{path.name}", dir=path.parent)
    except OSError as error:  # a folder that is read-only, for instance
        error.filename = os.fspath(path)
        raise
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        mask = os.umask(0)  # mkstemp makes private files; give this one the usual permissions
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        uncache(path)
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        where = pathlib.Path(error.filename or temporary)
        if error.errno not in FULL or path.parent not in where.parents:
            raise
        full = OSError(
            f"Cannot write '{path}': {os.strerror(error.errno)}. Make room there and try again; "
            "what it held before is unchanged."
        )
        full.errno = error.errno
        raise full from error
    finally:
        temporary.unlink(missing_ok=True)


def uncache(path: pathlib.Path) -> None:
    """Drops a file's contents from the system's page cache.

    The old file stays on disk until the new one is written, so both would be cached. On a virtual
    machine, getting more memory from the host can take longer than the write; see
    docs/performance.md.
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
