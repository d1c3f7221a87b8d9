"""Passes over a `keras.utils.PyDataset` of training data, whose workers end with each pass."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from packnet_tf.backend.keras_internals import py_dataset_adapter

if TYPE_CHECKING:
    import tensorflow as tf


class _Ordered(keras.utils.PyDataset):
    """The batches of another `PyDataset`, in the order of an epoch."""

    def __init__(self, source: keras.utils.PyDataset, seed: int | None) -> None:
        super().__init__(source.workers, source.use_multiprocessing, source.max_queue_size)
        self._source, self._seed = source, seed
        self._order: list[int] = list(range(source.num_batches))

    def shuffle(self, epoch: int) -> None:
        key = None if self._seed is None else (self._seed, epoch)
        order = np.random.default_rng(key).permutation(self._source.num_batches)
        self._order = order.tolist()

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:
        return self._source[self._order[index]]

    def on_epoch_begin(self) -> None:
        self._source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._source.on_epoch_end()


class PyDatasetPasses:
    """Passes over a `PyDataset`, with its workers, in a shuffled order.

    Args:
        source: the data; it has an end.
        seed: seed for the order of its batches; None: another order every time.

    Attributes:
        dataset: a `tf.data.Dataset` of the batches of the pass that has begun.
    """

    dataset: "tf.data.Dataset"

    def __init__(self, source: keras.utils.PyDataset, seed: int | None) -> None:
        self._batches = _Ordered(source, seed)
        self._adapter = py_dataset_adapter(self._batches)
        self.dataset = self._adapter.get_tf_dataset()

    def begin(self, epoch: int) -> int:
        """Begins the pass of an epoch and starts the workers; returns the number of batches."""
        self._batches.shuffle(epoch)
        self._adapter.on_epoch_begin()
        return len(self._batches)

    def end(self) -> None:
        """Ends the pass and stops the workers."""
        self._adapter.on_epoch_end()

    def skip(self) -> None:
        """Tells the data about an epoch of an earlier run, without reading from them."""
        self._batches.on_epoch_begin()
        self._batches.on_epoch_end()
