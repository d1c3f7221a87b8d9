"""How tasks treat unpacked weights: shared after the first task, or one copy per task."""

import dataclasses

import keras

from packnet_tf.backend.keras_internals import all_layers, inner_layers
from packnet_tf.packing.layers import Packed, own_variables
from packnet_tf.packing.stem import stem_layers

NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


def own_weights(trunk: keras.Model) -> list[tuple[keras.layers.Layer, keras.Variable]]:
    """Returns every weight of a trunk that is not packed, with the layer that holds it.

    The order depends on the trunk's structure alone, so it is the same for all clones of a trunk.
    """
    pairs, seen = [], set()
    for layer in all_layers(trunk):
        for variable in own_variables(layer):
            if id(variable) not in seen:
                seen.add(id(variable))
                pairs.append((layer, variable))
    return pairs


@dataclasses.dataclass(frozen=True)
class Policy:
    """How tasks treat the weights of the trunk, chosen when the pack is made.

    Attributes:
        biases: "shared" (train with the first task, then frozen) or "per_task".
        norms: the same for normalisation layers: gain, bias and moving statistics.
        restart: the values at which freed weights start a later task: "trunk" (the trunk's
            original values), "zero", or "fresh" (new samples from the layers' initializers).
        embeddings: "shared", or "packed" in the same way as kernels.
        stem: the last layer of the trunk's stem, whose weights are all shared; None for no stem.

    All other unpacked weights (those of custom layers, say) are shared. If a custom layer updates
    its own statistics despite `trainable=False`, they are stored per task.
    """

    biases: str = "shared"
    norms: str = "per_task"
    restart: str = "trunk"
    embeddings: str = "shared"
    stem: str | None = None

    def __post_init__(self) -> None:
        known = {
            "biases": ("shared", "per_task"),
            "norms": ("shared", "per_task"),
            "restart": ("trunk", "zero", "fresh"),
            "embeddings": ("shared", "packed"),
        }
        for name, choices in known.items():
            value = getattr(self, name)
            if value not in choices:
                remedy = " or ".join(f"{name}={choice!r}" for choice in choices)
                raise ValueError(f"{name}={value!r} is not a policy; write {remedy}.")

    def shared(self, trunk: keras.Model) -> list[bool]:
        """Returns for each of `own_weights(trunk)` whether it trains with the first task only."""
        stem = {id(layer) for layer in stem_layers(trunk, self.stem)}
        return [
            id(layer) in stem or self._shares(layer, variable)
            for layer, variable in own_weights(trunk)
        ]

    def _shares(self, layer: keras.Layer, variable: keras.Variable) -> bool:
        if isinstance(layer, NORMS):
            return self.norms == "shared"
        if variable.name == "bias":
            return self.biases == "shared"
        return True

    def freeze_shared(self, trunk: keras.Model) -> None:
        """Freezes the shared weights in the trunk of a later task."""
        frozen: dict[int, list[bool]] = {}
        layers = {}
        for (layer, variable), shared in zip(own_weights(trunk), self.shared(trunk), strict=True):
            if shared:
                variable.trainable = False
            layers[id(layer)] = layer
            frozen.setdefault(id(layer), []).append(shared)
        for key, layer in layers.items():
            # With `trainable=False`, normalisation runs in inference mode, as in the paper: its
            # moving statistics do not change.
            if all(frozen[key]) and not isinstance(layer, Packed) and not inner_layers(layer):
                layer.trainable = False
