"""How tasks treat unpacked weights: shared after the first task, or one copy per task."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import keras

from packnet_tf.backend.keras_internals import (
    all_layers,
    has_graph,
    inner_layers,
    operations_before,
)
from packnet_tf.packing.layers import Packed, own_variables
from packnet_tf.packing.weight import copy_value

NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)
Located = Mapping[str, tuple[keras.Model, keras.Layer]]


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

    def copy_shared(self, source: keras.Model, target: keras.Model) -> None:
        """Copies the values of the shared weights from a copy of the trunk to another one."""
        pairs = zip(own_weights(source), own_weights(target), strict=True)
        for ((_, trained), (_, kept)), shared in zip(pairs, self.shared(target), strict=True):
            if shared:
                copy_value(trained, kept)

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


def stem_layers(trunk: keras.Model, stem: str | None) -> list[keras.Layer]:
    """Returns the layers up to and including the stem's last one, nested layers included.

    Args:
        trunk: a functional or sequential model, or a copy of one.
        stem: the name of the layer, or its path (`mobilenet/block_12_add`) in a nested model; None
            for a trunk without a stem.

    Raises:
        ValueError: the trunk has no such layer, or several, or the layer is its input.

    Example:
        >>> [layer.name for layer in stem_layers(trunk, "first")]
        ['features', 'first']
    """
    if stem is None:
        return []
    located = dict(_located(trunk))
    names = _path_of(stem, located, trunk.name).split("/")
    found: list[keras.Layer] = []
    for path in itertools.accumulate(names, "{}/{}".format):
        model, layer = located[path]
        found += [x for x in operations_before(model, layer) if isinstance(x, keras.Layer)]
    if all(isinstance(x, keras.layers.InputLayer) for x in [*found, layer]):
        raise ValueError(
            f"stem={stem!r} is the input of trunk '{trunk.name}', so tasks would share no layer. "
            "Name a later layer, or leave stem out."
        )
    return [part for whole in [*found, layer] for part in all_layers(whole)]


def _path_of(stem: str, located: Located, trunk: str) -> str:
    """Returns the path of the layer that `stem` names."""
    matching = [path for path, (_, layer) in located.items() if stem in (path, layer.name)]
    if stem in matching:
        return stem
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ValueError(
            f"stem='{stem}' names {len(matching)} layers of trunk '{trunk}'. Write the path of "
            f"one, stem='{matching[0]}' for instance."
        )
    paths = [path for path, (_, layer) in located.items() if layer.weights] or list(located)
    raise ValueError(
        f"stem={stem!r} is no layer of trunk '{trunk}'. Write the name of the last layer that all "
        f"tasks share, stem='{paths[len(paths) // 2]}' for instance."
    )


def _located(
    model: keras.Model, prefix: str = ""
) -> Iterator[tuple[str, tuple[keras.Model, keras.Layer]]]:
    """Yields the path of every layer of a model's graph, with the model that it is part of."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        yield path, (model, layer)
        if isinstance(layer, keras.Model) and has_graph(layer):
            yield from _located(layer, f"{path}/")
