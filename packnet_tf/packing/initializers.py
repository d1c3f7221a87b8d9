"""Initializers: skipped for weights that will be overwritten, sampled again for freed ones.

Sampling the kernels of a large network takes as long as reading them from a file.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.types import Tensor
from packnet_tf.packing.layers import Packed

KERNEL_INITIALIZERS = (
    "kernel_initializer",
    "recurrent_initializer",
    "depthwise_initializer",
    "pointwise_initializer",
    "embeddings_initializer",
)


@keras.saving.register_keras_serializable("packnet_tf")
class SkippedInitializer(keras.initializers.Initializer):
    """Initializes to zeros and remembers the initializer that it stands in for."""

    def __init__(self, initializer: Any) -> None:
        self.initializer = keras.initializers.get(initializer)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        return keras.ops.zeros(shape, dtype)

    def get_config(self) -> dict:
        return {"initializer": keras.initializers.serialize(self.initializer)}


def with_skipped_init(config: dict) -> dict:
    """Returns a layer's configuration in which initializers are replaced until the layer exists.

    Call `restore_initializers` on the layers created from it.
    """
    return _replaced(config, lambda initializer: {**_OUTER, "config": {"initializer": initializer}})


def with_zeros_init(config: dict) -> dict:
    """Returns a layer's configuration with zeros for initializers, for views.

    Views never need the original initializers, and creating those would advance Keras's random
    state.
    """
    return _replaced(config, lambda initializer: _ZEROS)


def restore_initializers(layers: Iterable[keras.layers.Layer]) -> None:
    """Restores the initializers of layers created from `with_skipped_init` configurations."""
    for layer in layers:
        for attribute, value in list(vars(layer).items()):
            if isinstance(value, SkippedInitializer):
                setattr(layer, attribute, value.initializer)


def fresh_values(layers: Iterable[keras.layers.Layer]) -> Iterator[np.ndarray]:
    """Samples new values for freed weights, under `restart="fresh"`.

    Args:
        layers: the layers of a store, which hold their initializers; others yield nothing.

    Yields:
        An array of the weight's shape; Glorot uniform if the layer has no initializer.
    """
    for layer in layers:
        for name, weight in layer.packed_weights.items() if isinstance(layer, Packed) else ():
            initializer = initializer_of(layer, name) or keras.initializers.GlorotUniform()
            # A fresh copy: a Keras initializer repeats its numbers.
            initializer = type(initializer).from_config(initializer.get_config())
            yield keras.ops.convert_to_numpy(initializer(weight.packed.shape, weight.packed.dtype))


def initializer_of(layer: keras.layers.Layer, name: str) -> keras.initializers.Initializer | None:
    """Returns a weight's initializer.

    Args:
        layer: a layer, packed or not.
        name: the weight's name in it, such as "kernel".

    Returns:
        None if the layer has none for it, or changes what it draws (`unit_forget_bias`).
    """
    if name == "bias" and getattr(layer, "unit_forget_bias", False):
        return None
    # The kernel of a depthwise convolution has an initializer of another name.
    names = (name, name.removesuffix("_kernel"), *(["depthwise"] if name == "kernel" else []))
    for attribute in (f"{each}_initializer" for each in names):
        found = getattr(layer, attribute, None)
        if isinstance(found, keras.initializers.Initializer):
            return found
    return None


def _replaced(config: dict, stand_in: Callable[[dict], dict]) -> dict:
    chosen = {
        key: stand_in(value)
        for key, value in config.items()
        if key in KERNEL_INITIALIZERS and isinstance(value, dict)
    }
    return {**config, **chosen}


_ZEROS = keras.initializers.serialize(keras.initializers.Zeros())
_OUTER = keras.initializers.serialize(SkippedInitializer("zeros"))
