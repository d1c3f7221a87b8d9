"""Makes `fit` work under `MultiWorkerMirroredStrategy`, which Keras 3.15 does not support."""

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
    """A Keras model that several workers can fit and evaluate.

    Before the first step, Keras reduces the first batch over the workers; after each step, it
    reduces the results along their first axis, which scalars do not have. This class builds the
    model from the worker's own first batch and returns results of shape (1,). Under other
    strategies and on other backends it behaves like `keras.Model`.
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
