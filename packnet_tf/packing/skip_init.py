"""Layers made without drawing first values that are overwritten at once.

To draw the kernels of a large network takes as long as to read them from a file.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from packnet_tf.backend.types import Tensor

KERNEL_INITIALIZERS = (
    "kernel_initializer",
    "recurrent_initializer",
    "depthwise_initializer",
    "pointwise_initializer",
    "embeddings_initializer",
)


@keras.saving.register_keras_serializable("packnet_tf")
class SkippedInitializer(keras.initializers.Initializer):
    """Zeros, in the place of an initializer that the layer gets back once it is built."""

    def __init__(self, initializer: Any) -> None:
        self.initializer = keras.initializers.get(initializer)

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        return keras.ops.zeros(shape, dtype)

    def get_config(self) -> dict:
        return {"initializer": keras.initializers.serialize(self.initializer)}


def with_skipped_init(config: dict) -> dict:
    """A layer's configuration with which nothing is drawn until `restore_initializers`."""
    return _replaced(config, lambda initializer: {**_OUTER, "config": {"initializer": initializer}})


def with_zeros_init(config: dict) -> dict:
    """The same for views, which keep zeros: to make an initializer moves the random state."""
    return _replaced(config, lambda initializer: _ZEROS)


def restore_initializers(layers: Iterable[keras.layers.Layer]) -> None:
    """Gives layers that were made of `with_skipped_init` configurations their own initializers."""
    for layer in layers:
        for attribute, value in list(vars(layer).items()):
            if isinstance(value, SkippedInitializer):
                setattr(layer, attribute, value.initializer)


def _replaced(config: dict, stand_in: Callable[[dict], dict]) -> dict:
    chosen = {
        key: stand_in(value)
        for key, value in config.items()
        if key in KERNEL_INITIALIZERS and isinstance(value, dict)
    }
    return {**config, **chosen}


_ZEROS = keras.initializers.serialize(keras.initializers.Zeros())
_OUTER = keras.initializers.serialize(SkippedInitializer("zeros"))
