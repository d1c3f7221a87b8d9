"""The features by which a router tells tasks apart: channel means of a trunk's feature maps."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from packnet_tf.backend.keras_internals import run_operations
from packnet_tf.backend.types import Tensor, Tensors

SMOOTH = 1e-3  # keeps the slope of the square root finite at 0


def feature_model(trunk: keras.Model) -> keras.Model:
    """Builds the model that gives one vector of features per example.

    The features are the channel means of the trunk's outputs and, for a network on images, of its
    last feature map at every earlier resolution. Early layers know textures and contrast, which the
    last layer was trained to ignore, and which tell domains apart. Each part is normalised by
    `power_normalized`, so that none outweighs the others.

    Args:
        trunk: a functional model of plain layers, which the model shares.

    Returns:
        A model from the trunk's inputs to float32 features (batch, n).

    Raises:
        ValueError: the trunk has an output whose number of channels is unknown.

    Source: of the normalisation, Perronnin et al., Improving the Fisher Kernel, ECCV 2010.
    """
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name), trunk.input
    )
    vectors = ChannelMeans(trunk)(inputs)
    if vectors.shape[-1] is None:
        raise ValueError(
            f"A router needs a trunk whose outputs have a known number of channels; those of "
            f"'{trunk.name}' have the shape {trunk.output_shape}."
        )
    return keras.Model(inputs, vectors, name="router")


class ChannelMeans(keras.layers.Layer):
    """A trunk with the features of `feature_model` as its output.

    It is one layer, because a model of the trunk's own layers would need different names for all of
    them, those of nested models included.

    Args:
        trunk: the trunk.
    """

    def __init__(self, trunk: keras.Model) -> None:
        super().__init__(name="router_features", autocast=False)
        self.trunk = trunk

    def call(self, inputs: Tensors) -> Tensor:
        computed: list[Tensor] = []
        outputs = keras.tree.flatten(run_operations(self.trunk, inputs, computed.append))
        size = keras.tree.flatten(inputs)[0].shape[1:-1]
        vectors = [
            power_normalized(channel_means(part))
            for part in [*earlier_maps(computed, size), *outputs]
        ]
        return ops.concatenate(vectors, axis=-1)


def earlier_maps(computed: list[Tensor], size: Sequence[int | None]) -> list[Tensor]:
    """Returns the last feature map at every resolution between the image's and the last one.

    Args:
        computed: tensors of a network, in the order in which they are computed.
        size: height and width of the network's images; any other shape has no feature maps.

    Returns:
        Tensors (batch, height, width, channels), at half of the size first, then at a quarter, ...
        Heights that differ from these by padding belong to the nearest.
    """
    if len(size) != 2 or not size[0]:
        return []
    found: dict[int, Tensor] = {}
    for tensor in computed:
        shape = tuple(getattr(tensor, "shape", ()))
        if len(shape) == 4 and shape[1] and shape[-1]:
            found[round(math.log2(size[0] / shape[1]))] = tensor
    return [found[halvings] for halvings in sorted(found)[:-1] if halvings > 0]


def channel_means(tensor: Tensor) -> Tensor:
    """Returns the means over all axes but the first and the last, float32 (batch, channels)."""
    tensor = ops.cast(tensor, "float32")
    if len(tensor.shape) < 2:
        return ops.reshape(tensor, (-1, 1))
    between = tuple(range(1, len(tensor.shape) - 1))
    return ops.mean(tensor, axis=between) if between else tensor


def power_normalized(vectors: Tensor) -> Tensor:
    """Takes signed square roots of vectors (batch, n), and scales them to length 1.

    The square root makes the distribution of rectified features more like a Gaussian.
    """
    unit = _unit(vectors)
    return _unit(unit * ops.rsqrt(ops.absolute(unit) + SMOOTH))


def _unit(vectors: Tensor) -> Tensor:
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, 1e-12))
