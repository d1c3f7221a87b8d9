"""References to training data, on which moving statistics are measured later."""

import collections

import keras
import numpy as np

from packnet_tf.backend.distribution import has_workers
from packnet_tf.backend.types import AnyData, Tensors
from packnet_tf.normalization.statistics import update_statistics

MOST_BATCHES = 64  # batches of a custom loop to keep, by reference
MOST_STEPS = 256  # batches per pass: more change statistics little and take long


class SeenData:
    """Keeps references to training data: those of the last `fit`, or a custom loop's last batches.

    It cannot keep batches within a traced function. Moving statistics then stay the average over
    the training steps (`statistics.momentum_after`).
    """

    def __init__(self) -> None:
        self._fit: tuple | None = None
        self._batches: collections.deque = collections.deque(maxlen=MOST_BATCHES)

    def remember_fit(
        self, x: AnyData, batch_size: int | None = None, steps: int | None = None
    ) -> None:
        """Keeps the data of a `fit`; keeps nothing of a generator, which is used up."""
        self._forget()
        if x is not None and not hasattr(x, "__next__"):
            steps = MOST_STEPS if steps is None else min(steps, MOST_STEPS)
            self._fit = (x, batch_size, steps)

    def remember_batch(self, x: Tensors) -> None:
        """Keeps the inputs of a batch, unless they are symbolic."""
        leaves = keras.tree.flatten(x)
        if all(isinstance(leaf, np.ndarray) or hasattr(leaf, "numpy") for leaf in leaves):
            self._fit = None
            self._batches.append(x)

    def update_statistics(self, model: keras.Model) -> None:
        """Measures a model's moving statistics on the kept data, then drops the data."""
        several = has_workers(getattr(model, "distribute_strategy", None))
        try:
            if several:  # `predict` does not run on several hosts
                pass
            elif self._fit is not None:
                x, batch_size, steps = self._fit
                update_statistics(model, x, batch_size, steps)
            elif self._batches:
                update_statistics(model, _Replay(list(self._batches)))
        except Exception:
            self._forget()
            raise
        self._forget()  # not after Ctrl-C: a repeated commit needs the data

    def _forget(self) -> None:
        self._fit = None
        self._batches.clear()


class _Replay(keras.utils.PyDataset):
    """Replays a list of batches."""

    def __init__(self, batches: list):
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: int) -> tuple:
        return (keras.tree.map_structure(keras.ops.convert_to_numpy, self._batches[place]),)
