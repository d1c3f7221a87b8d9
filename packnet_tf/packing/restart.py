"""Restart values for freed weights under `restart="fresh"`."""

from collections.abc import Iterator

import keras
import numpy as np

from packnet_tf.packing.layers import Packed
from packnet_tf.packing.trunk import PackedTrunk


def fresh_values(trunk: PackedTrunk) -> Iterator[np.ndarray]:
    """Samples new values from the initializers of a trunk's packed weights, in the order of
    `packed_weights`.

    Args:
        trunk: the store of a pack; its layers hold their initializers.

    Yields:
        An array of the weight's shape; Glorot uniform if the layer has no initializer.
    """
    for _, layer in trunk.paths():
        for name, weight in layer.packed_weights.items() if isinstance(layer, Packed) else ():
            initializer = _initializer(layer, name)
            yield keras.ops.convert_to_numpy(initializer(weight.packed.shape, weight.packed.dtype))


def _initializer(layer: Packed, name: str) -> keras.initializers.Initializer:
    """Creates a fresh copy of the initializer: a Keras initializer repeats its numbers."""
    # The kernel of a depthwise convolution has an initializer of another name.
    names = (name, name.removesuffix("_kernel"), "depthwise")
    for attribute in (f"{each}_initializer" for each in names):
        found = getattr(layer, attribute, None)
        if isinstance(found, keras.initializers.Initializer):
            return type(found).from_config(found.get_config())
    return keras.initializers.GlorotUniform()
