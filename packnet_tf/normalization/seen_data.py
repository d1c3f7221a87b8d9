"""The data a model was trained on, for what is to be measured on them afterwards."""

import collections

import keras
import numpy as np

from packnet_tf.backend.distribution import has_workers
from packnet_tf.backend.types import AnyData, Tensors
from packnet_tf.normalization.statistics import update_statistics

MOST_BATCHES = 64  # of a loop of one's own; references, not copies
MOST_STEPS = 256  # of a pass: more change statistics little, and large data take long


class SeenData:
    """Training data by reference: what `fit` was given last, or the last batches of another loop.

    Batches within a traced function are not seen: moving statistics then are the average that
    training has left (`statistics.momentum_after`).
    """

    def __init__(self) -> None:
        self._fit: tuple | None = None
        self._batches: collections.deque = collections.deque(maxlen=MOST_BATCHES)

    def remember_fit(
        self, x: AnyData, batch_size: int | None = None, steps: int | None = None
    ) -> None:
        """Remembers the data of a `fit`; of a generator, which is used up, nothing."""
        self._forget()
        if x is not None and not hasattr(x, "__next__"):
            steps = MOST_STEPS if steps is None else min(steps, MOST_STEPS)
            self._fit = (x, batch_size, steps)

    def remember_batch(self, x: Tensors) -> None:
        """Remembers the inputs of a batch of concrete values."""
        leaves = keras.tree.flatten(x)
        if all(isinstance(leaf, np.ndarray) or hasattr(leaf, "numpy") for leaf in leaves):
            self._fit = None
            self._batches.append(x)

    def update_statistics(self, model: keras.Model) -> None:
        """Measures a model's moving statistics on the data, and forgets them."""
        several = has_workers(getattr(model, "distribute_strategy", None))
        try:
            if several:  # Keras's predict does not spread over hosts
                pass
            elif self._fit is not None:
                x, batch_size, steps = self._fit
                update_statistics(model, x, batch_size, steps)
            elif self._batches:
                update_statistics(model, _Replay(list(self._batches)))
        except Exception:
            self._forget()
            raise
        self._forget()  # not after Ctrl-C: a commit tried again needs them

    def _forget(self) -> None:
        self._fit = None
        self._batches.clear()


class _Replay(keras.utils.PyDataset):
    """Batches once more."""

    def __init__(self, batches: list):
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: int) -> tuple:
        return (keras.tree.map_structure(keras.ops.convert_to_numpy, self._batches[place]),)
