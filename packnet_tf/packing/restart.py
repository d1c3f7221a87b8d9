"""Restart values for freed weights under `restart="fresh"`."""

from collections.abc import Iterator

import keras
import numpy as np

from packnet_tf.packing.layers import Packed
from packnet_tf.packing.trunk import PackedTrunk


def fresh_values(trunk: PackedTrunk) -> Iterator[np.ndarray]:
    """Samples new values from the initializers of a trunk's packed weights, in their order.

    Args:
        trunk: the store of a pack; its layers hold their initializers.

    Yields:
        An array of the weight's shape; Glorot uniform if the layer has no initializer.
    """
    for layer in trunk.packed_layers():
        for name, weight in layer.packed_weights.items():
            initializer = _initializer(layer, name)
            yield keras.ops.convert_to_numpy(initializer(weight.packed.shape, weight.packed.dtype))


def _initializer(layer: Packed, name: str) -> keras.initializers.Initializer:
    """Creates a fresh copy of the initializer: a Keras initializer repeats its numbers."""
    for attribute in (f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer"):
        found = getattr(layer, attribute, None)
        if isinstance(found, keras.initializers.Initializer):
            return type(found).from_config(found.get_config())
    return keras.initializers.GlorotUniform()
