"""Files that are either the old ones or the new ones, never half of each."""

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
    """Yields a temporary path beside `path`; on success it is flushed and takes `path`'s place.

    When the block raises, the temporary file is removed and `path` is as it was.

    Raises:
        OSError: the disk is full; in one sentence, which names `path`.

    Example:
        >>> with replacing("manifest.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The whole name at the end: savers look at the suffix.
    handle, name = tempfile.mkstemp(prefix=".writing-", suffix=f"-{path.name}", dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        mask = os.umask(0)  # mkstemp makes private files; a saved one is like any other
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
    """Lets the system take the memory in which it keeps a file's contents, for other contents.

    The old file is there until the new one is written, and on a virtual machine memory that the
    host has to give first takes longer than all the writing; see docs/performance.md.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def flush(path: pathlib.Path) -> None:
    """Waits until a file's contents, or a folder's entries, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # folders cannot be opened on every system
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
