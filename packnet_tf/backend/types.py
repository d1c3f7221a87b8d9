"""Names, for annotations, of what has no type of its own in Python."""

import os
from typing import Any, TypeAlias

AnyPath: TypeAlias = str | os.PathLike[str]
# A tf.Tensor or a jax.Array, by the backend; a keras.KerasTensor while a graph is made.
Tensor: TypeAlias = Any
# Tensors or arrays, one alone or several in tuples, lists and dicts.
Tensors: TypeAlias = Any
# What `fit` and `predict` take: arrays, a tf.data.Dataset, a keras.utils.PyDataset, an iterable.
AnyData: TypeAlias = Any
# A tf.distribute.Strategy; None where there is none.
Strategy: TypeAlias = Any
