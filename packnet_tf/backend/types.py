"""Type aliases for values that have no static type of their own."""

import os
from typing import Any, TypeAlias

AnyPath: TypeAlias = str | os.PathLike[str]
# A tf.Tensor or a jax.Array; a keras.KerasTensor while a graph is built.
Tensor: TypeAlias = Any
# A tensor or array, or a nested structure of them.
Tensors: TypeAlias = Any
# The inputs of `fit` and `predict`: arrays, a tf.data.Dataset, a PyDataset, an iterable.
AnyData: TypeAlias = Any
# A tf.distribute.Strategy, or None.
Strategy: TypeAlias = Any
