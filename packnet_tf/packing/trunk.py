"""A trunk with packed layers in it."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.keras_internals import all_layers, inner_layers, trained_variables
from packnet_tf.packing import registry  # noqa: F401  registers what files may hold
from packnet_tf.packing.configs import changed, repair
from packnet_tf.packing.layers import (
    PACKED_CLASSES,
    Packed,
    TaskView,
    check_new_values,
    own_variables,
    pack_layer,
)
from packnet_tf.packing.skip_init import restore_initializers, with_skipped_init
from packnet_tf.packing.weight import PackedWeight, assign_values, values_of


@keras.saving.register_keras_serializable("packnet_tf")
class PackedTrunk(keras.Model):
    """The graph of a trunk, some of whose layers are packed: the store of a pack, or a view of it.

    It is an ordinary functional model. What it adds is that its configuration says which layers
    are packed, by their place in the structure, for layers within layers (the projections of
    attention, the cell of a recurrent layer) are in no configuration of their own.

    Attributes:
        task_view: what its packed layers show.
    """

    task_view = TaskView()

    def pack_layers(self, places: list[int], sees: Sequence[int], frozen: bool) -> None:
        """Packs the layers at these places of `_flatten_layers()`.

        Raises:
            ValueError: there is no layer at one of them that can be packed.
        """
        layers, self.task_view = all_layers(self), TaskView(tuple(sees), frozen)
        for place in places:
            layer = layers[place] if place < len(layers) else None
            if layer is None or type(layer) not in PACKED_CLASSES:
                raise ValueError(
                    f"trunk '{self.name}' has no layer to pack at place {place} but {layer!r}; if "
                    "it is a layer of your own, call packnet_tf.register_packed for it first"
                )
            pack_layer(layer, self.task_view)

    def packed_layers(self) -> list[Packed]:
        """Its packed layers, in the order of its structure."""
        return [layer for layer in all_layers(self) if isinstance(layer, Packed)]

    def packed_weights(self) -> dict[str, PackedWeight]:
        """Its packed weights by path: the layer's, and the weight's if the layer has several."""
        weights = {}
        for path, layer in self.paths():
            for name, weight in layer.packed_weights.items() if isinstance(layer, Packed) else ():
                key = path if len(layer.packed_weights) == 1 else f"{path}/{name}"
                while key in weights:  # layers within a layer may have the same name
                    key += "_"
                weights[key] = weight
        return weights

    def paths(self) -> Iterator[tuple[str, keras.layers.Layer]]:
        """Its layers, layers within layers included, each after the path of names to it."""
        return _paths(self.layers, "", set())

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        check_new_values(self, self.weights, weights)
        super().set_weights(weights)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        with self.keeping_committed(self.variables):
            super().load_weights(*args, **kwargs)

    def set_state_tree(self, state_tree: dict) -> None:
        with self.keeping_committed(self.variables):
            super().set_state_tree(state_tree)

    @contextlib.contextmanager
    def keeping_committed(self, variables: Sequence[keras.Variable]) -> Iterator[None]:
        """Within it Keras may assign what it likes; at its end it is known to be this pack's.

        Args:
            variables: those that may change, the view's among them.

        Raises:
            RuntimeError, ValueError: as `check_new_values` says. Everything is as it was.
        """
        old = values_of(variables)
        try:
            yield
            new = values_of(variables)
            assign_values(variables, old)
            check_new_values(self, variables, new)
            assign_values(variables, new)
        except BaseException:
            assign_values(variables, old)
            raise

    def get_config(self) -> dict:
        layers = all_layers(self)
        places = [place for place, layer in enumerate(layers) if isinstance(layer, Packed)]
        view = self.task_view
        packed = {"places": places, "sees": list(view.sees), "frozen": view.frozen}
        config = {**repair(super().get_config(), self), "packed": packed}
        return config | {"still": _still(layers)}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "PackedTrunk":
        config = changed(config, with_skipped_init)
        packed, still = dict(config.pop("packed")), config.pop("still")
        if "task" in packed:  # as files of format 5 have it
            packed["sees"] = range(1, packed.pop("task") + 1)
        trunk = super().from_config(config, custom_objects)
        layers = all_layers(trunk)
        restore_initializers(layers)
        trunk.pack_layers(**packed)
        _hold_still(layers, **still)
        return trunk


def _still(layers: Sequence[keras.layers.Layer]) -> dict[str, list]:
    """What is frozen: weights one by one, and layers within layers.

    Keras's configurations say it of whole layers of the graph alone.

    Returns:
        `layers`, places of layers, and `weights`, pairs of a layer's place and the weight's own
        among those of the layer that are not packed.
    """
    weights = []
    for place, layer in enumerate(layers):
        could = {id(variable) for variable in trained_variables(layer) if layer.trainable}
        for number, variable in enumerate(own_variables(layer)):
            if id(variable) in could and not variable.trainable:
                weights.append([place, number])
    return {
        "layers": [place for place, layer in enumerate(layers) if not layer.trainable],
        "weights": weights,
    }


def _hold_still(built: Sequence[keras.layers.Layer], layers: list, weights: list) -> None:
    """Freezes what `_still` has found in such layers."""
    for place in layers:
        built[place].trainable = False
    for place, number in weights:
        own_variables(built[place])[number].trainable = False


def _paths(
    layers: Sequence[keras.Layer], prefix: str, seen: set[int]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    for layer in layers:
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield f"{prefix}{layer.name}", layer
        inner = inner_layers(layer)
        yield from _paths(inner, f"{prefix}{layer.name}/", seen)
