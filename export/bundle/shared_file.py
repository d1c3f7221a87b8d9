"""`shared-HASH.data`: arrays that several graphs read, each stored once."""

import pathlib
from collections.abc import Mapping

import numpy as np

from packnet_tf.backend.types import AnyPath
from packnet_tf.export.files import name_by_content
from packnet_tf.export.graph.constants import digest

ALIGNMENT = 64  # bytes; ONNX Runtime reads aligned weights in place


class SharedFile:
    """A file of arrays that are addressed by a digest of their contents.

    Args:
        path: the file; created when the first array is put into it.
        index: offsets by digest, if the file exists already. Nothing can then be added to it.
    """

    def __init__(self, path: AnyPath, index: Mapping[str, int] | None = None) -> None:
        self.path, self.complete = pathlib.Path(path), index is not None
        self.index: dict[str, int] = dict(index or {})
        self._end = 0

    @property
    def name(self) -> str:
        return self.path.name

    def named_by_content(self) -> str:
        """Renames a new file after its contents; returns the name of the file."""
        if not self.complete:
            self.path = name_by_content(self.path)
        return self.name

    def put(self, array: np.ndarray, key: str | None = None) -> int:
        """Returns the offset of an array in bytes; appends the array if it is new.

        Args:
            array: the array to store.
            key: its digest; computed by default.

        Raises:
            KeyError: the array is new, and nothing can be added to the file.
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
