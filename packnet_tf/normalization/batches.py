"""Data to measure statistics on, in the batches that Keras's `predict` takes."""

from typing import Any

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.types import AnyData, Tensors


def are_arrays(data: AnyData) -> bool:
    """Returns whether data are arrays, tensors or tables, and not batches."""
    leaves = keras.tree.flatten(data)
    # A DataFrame counts, too; a `tf.data.Dataset` and a `PyDataset` do not.
    return all(ops.is_tensor(leaf) or hasattr(leaf, "__array__") for leaf in leaves)


class Shuffled(keras.utils.PyDataset):
    """Shuffles arrays into batches, in the same order every time."""

    def __init__(self, x: Tensors, batch_size: int) -> None:
        super().__init__()
        self._x, self._size = keras.tree.map_structure(_as_array, x), batch_size
        self._order = np.random.default_rng(0).permutation(len(keras.tree.flatten(self._x)[0]))

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, place: int) -> tuple:
        rows = self._order[place * self._size : (place + 1) * self._size]
        return (as_batch(keras.tree.map_structure(lambda array: array[rows], self._x)),)


class Replay(keras.utils.PyDataset):
    """Replays a list of batches."""

    def __init__(self, batches: list):
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: int) -> tuple:
        batch = keras.tree.map_structure(ops.convert_to_numpy, self._batches[place])
        return (as_batch(batch),)


def as_batch(inputs: Any) -> Any:
    """Returns inputs as tf.data takes them: tuples for lists, and tensors for arrays of texts."""
    if isinstance(inputs, dict):
        return {name: as_batch(value) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return tuple(map(as_batch, inputs))
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUS":
        return ops.convert_to_tensor(inputs, "string")
    return inputs


def _as_array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf) if hasattr(leaf, "__array__") else ops.convert_to_numpy(leaf)
    if array.dtype == object and not isinstance(next(array.flat, None), (str, bytes)):
        # A table whose columns are of several dtypes, which Keras casts, too.
        return array.astype(keras.config.floatx())
    return array
