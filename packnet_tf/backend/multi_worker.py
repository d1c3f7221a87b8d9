"""`fit` on several hosts: what Keras 3.15 lacks for `MultiWorkerMirroredStrategy`."""

from collections.abc import Iterator
from typing import Any

import keras

from packnet_tf.backend.types import Tensors


def _several_workers(model: keras.Model) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)


class FittingModel(keras.Model):
    """A Keras model that can be fitted and evaluated by several workers.

    Keras averages batches of data over the workers before the first step, and averages the
    results of a step along their first axis, which numbers do not have. So the first batch is that
    of this worker here, and results are vectors of one number. Under other strategies, and on
    other backends than TensorFlow, it is Keras's own model.
    """

    def _maybe_symbolic_build(
        self, iterator: Iterator | None = None, data_batch: Tensors = None
    ) -> None:
        if iterator is not None and _several_workers(self):
            strategy = self.distribute_strategy
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], next(batches)
                )
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    def train_step(self, *args: Any, **kwargs: Any) -> Tensors:
        return self._as_vectors(super().train_step(*args, **kwargs))

    def test_step(self, *args: Any, **kwargs: Any) -> Tensors:
        return self._as_vectors(super().test_step(*args, **kwargs))

    def _as_vectors(self, results: Tensors) -> Tensors:
        if not _several_workers(self):
            return results
        return keras.tree.map_structure(lambda x: keras.ops.reshape(x, (1,)), results)
