"""`shared.data`: numbers that several graphs read, each kept once."""

import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np

from packnet_tf.backend.types import AnyPath

ALIGNMENT = 64  # ONNX Runtime reads weights in place where they lie on such a boundary


def digest(array: np.ndarray) -> str:
    """A name for what an array holds: 16 hexadecimal digits."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.blake2b(
        np.ascontiguousarray(array).view(np.uint8).reshape(-1).data, digest_size=8, key=head[:64]
    ).hexdigest()


class SharedFile:
    """A file of arrays, found again by what they hold.

    Args:
        path: the file; made when the first array is put into it.
        index: by digest, the offsets of the arrays that are in it already; it is then complete.
    """

    def __init__(self, path: AnyPath, index: Mapping[str, int] | None = None) -> None:
        self.path, self.complete = pathlib.Path(path), index is not None
        self.index: dict[str, int] = dict(index or {})
        self._end = 0

    @property
    def name(self) -> str:
        return self.path.name

    def put(self, array: np.ndarray, key: str | None = None) -> int:
        """The offset of an array, which is written where it is not there yet.

        Args:
            array: what to keep.
            key: its digest, where it is known.

        Raises:
            KeyError: the file is complete and does not hold it.
        """
        key = key or digest(array)
        if key not in self.index:
            if self.complete:
                raise KeyError(key)
            with self.path.open("ab") as file:
                self._end += file.write(bytes(-self._end % ALIGNMENT))
                self.index[key] = self._end
                self._end += file.write(np.ascontiguousarray(array).data)
        return self.index[key]
