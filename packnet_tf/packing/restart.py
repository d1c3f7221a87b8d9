"""What freed weights start a later task from, where that is a fresh initialisation."""

from collections.abc import Iterator

import keras
import numpy as np

from packnet_tf.packing.layers import Packed
from packnet_tf.packing.trunk import PackedTrunk


def fresh_values(trunk: PackedTrunk) -> Iterator[np.ndarray]:
    """New draws from the initializers of a trunk's packed weights, in the order of those weights.

    Args:
        trunk: the store of a pack; its layers know how their kernels were initialised.

    Yields:
        An array of the weight's shape; Glorot uniform where the layer does not say how.
    """
    for layer in trunk.packed_layers():
        for name, weight in layer.packed_weights.items():
            initializer = _initializer(layer, name)
            yield keras.ops.convert_to_numpy(initializer(weight.packed.shape, weight.packed.dtype))


def _initializer(layer: Packed, name: str) -> keras.initializers.Initializer:
    """An initializer that has not been used: Keras's give the same numbers at every call."""
    for attribute in (f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer"):
        found = getattr(layer, attribute, None)
        if isinstance(found, keras.initializers.Initializer):
            return type(found).from_config(found.get_config())
    return keras.initializers.GlorotUniform()
