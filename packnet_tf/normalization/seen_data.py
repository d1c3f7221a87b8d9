"""References to training data, on which moving statistics are measured later."""

import collections
import math
from collections.abc import Iterator

import keras
import numpy as np

from packnet_tf.backend.distribution import has_workers, strategy_of_model
from packnet_tf.backend.types import AnyData, Tensor, Tensors
from packnet_tf.normalization.batches import Replay
from packnet_tf.normalization.statistics import NoBatchesError, update_statistics

MOST_BATCHES = 64  # batches of a custom loop to keep
MOST_BYTES = 2**28  # of these
FEW_STEPS = 10  # until then, averages are largely those that the trunk came with
MOST_STEPS = 256  # batches per pass: more change statistics little and take long


class SeenData:
    """Keeps training data: references to those of the last `fit`, or a custom loop's last batches.

    It cannot keep batches within a traced function. Moving statistics then stay the average over
    the training steps (`following.momentum_after`), unless `update_statistics` measures them.

    Its methods take `steps`, the number of training steps since the task began or was pruned.

    Attributes:
        outdated: whether statistics are those of the network before its last prune.
    """

    outdated = False

    def __init__(self) -> None:
        self._earlier = 0.0  # steps before the last prune
        self._fit: tuple | None = None
        self._fit_end: float | None = None  # None while `fit` runs
        self._batches: collections.deque = collections.deque(maxlen=MOST_BATCHES)
        self._count = 0  # batches since the last prune, or since others were dropped
        self._measured: float | None = None  # the steps when statistics were measured

    def remember_fit(
        self, x: AnyData, batch_size: int | None = None, steps: int | None = None
    ) -> None:
        """Keeps the data of a `fit` that begins; keeps no generator, which is used up."""
        self.forget()
        # Keras's iterators over folders are `PyDataset`s with a `__next__`.
        if isinstance(x, keras.utils.PyDataset) or not (x is None or hasattr(x, "__next__")):
            steps = MOST_STEPS if steps is None else min(steps, MOST_STEPS)
            self._fit = (x, batch_size, steps)

    def remember_batch(self, x: Tensors) -> None:
        """Keeps the inputs of a batch, unless they are symbolic."""
        leaves = keras.tree.flatten(x)
        if all(isinstance(leaf, np.ndarray) or hasattr(leaf, "numpy") for leaf in leaves):
            self._fit = None
            # Loops may write each batch into the same array.
            self._batches.append(keras.tree.map_structure(_copied, x))
            self._count += 1
            while len(self._batches) > 1 and sum(map(_bytes, self._batches)) > MOST_BYTES:
                self._batches.popleft()

    def watched(self, batches: Iterator) -> Iterator:
        """Yields the batches of a generator, and keeps the inputs of the last ones."""
        for batch in batches:
            self.remember_batch(batch[0] if isinstance(batch, (tuple, list)) else batch)
            yield batch

    def end_fit(self, steps: float) -> None:
        """Notes that `fit` has ended. Its data stay, for a prune that may follow."""
        self._fit_end = steps

    def measured(self, steps: float) -> None:
        """Notes that the statistics have just been measured."""
        self._measured, self.outdated = steps, False

    def pruned(self, steps: float) -> None:
        """Notes that the task has been pruned, after which steps count from 0 again."""
        self._drop_others(steps)
        self._earlier += steps
        if self._earlier < FEW_STEPS:  # too few examples to replace the averages by
            self._clear()
        self.outdated |= self._earlier >= FEW_STEPS
        self._measured = None
        if self._fit_end is not None:
            self._fit_end = 0.0

    def update_statistics(self, model: keras.Model, steps: float) -> bool:
        """Measures a model's moving statistics on the kept data, unless they are measured already.

        Returns:
            Whether it has measured them.
        """
        self._drop_others(steps)
        self.outdated &= steps == 0
        if steps == self._measured or has_workers(strategy_of_model(model)):
            return False  # `predict` does not run on several hosts
        try:
            if self._fit is not None:
                x, batch_size, limit = self._fit
                update_statistics(model, x, batch_size, limit)
            elif self._batches:
                update_statistics(model, Replay(list(self._batches)))
            else:
                return False
        except NoBatchesError:  # a dataset that could be read once
            self.forget()
            return False
        except Exception:
            self.forget()
            raise
        return True

    def has_trained(self, steps: float) -> bool:
        """Returns whether the task has had a training step."""
        return self._earlier + steps > 0

    def forget(self) -> None:
        """Drops all data."""
        self._fit = self._fit_end = None
        self._clear()

    def _clear(self) -> None:
        self._batches.clear()
        self._count = 0

    def _drop_others(self, steps: float) -> None:
        """Drops data if the task has been trained on others since, within traced functions."""
        if self._fit_end is not None and self._fit_end < steps:
            self._fit = self._fit_end = None
        if self._count < min(MOST_BATCHES, steps):
            self._clear()


def _copied(leaf: Tensor) -> Tensor:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _bytes(batch: Tensors) -> int:
    return sum(_bytes_of(leaf) for leaf in keras.tree.flatten(batch))


def _bytes_of(leaf: Tensor) -> int:
    if hasattr(leaf, "nbytes"):
        return int(leaf.nbytes)
    return math.prod(leaf.shape) * int(leaf.dtype.size)  # of TensorFlow
