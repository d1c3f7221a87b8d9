"""`PackedTrunk`: a functional model that contains packed layers."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.keras_internals import all_layers, inner_layers, limited, trained_variables
from packnet_tf.packing import registry  # noqa: F401  registers the classes that files name
from packnet_tf.packing.configs import changed, repair
from packnet_tf.packing.initializers import restore_initializers, with_skipped_init
from packnet_tf.packing.layers import (
    PACKED_CLASSES,
    Packed,
    TaskView,
    check_new_values,
    count_network_params,
    own_variables,
    pack_layer,
)
from packnet_tf.packing.recurrent import view_once_per_sequence
from packnet_tf.packing.weight import PackedWeight, assign_values, values_of


@keras.saving.register_keras_serializable("packnet_tf")
class PackedTrunk(keras.Model):
    """A trunk with packed layers: the store of a pack, or a view of the store.

    It is a functional model. Its configuration also lists the positions of the packed layers,
    because Keras's configurations do not describe nested layers (the projections of attention,
    the cell of a recurrent layer).

    Attributes:
        task_view: what its packed layers show.
    """

    task_view = TaskView()

    def pack_layers(self, places: list[int], sees: Sequence[int], frozen: bool) -> None:
        """Packs the layers at these positions of `all_layers`.

        Args:
            places: indices into `all_layers(self)`.
            sees: numbers of the tasks whose weights are visible, see `TaskView`.
            frozen: whether the layers cannot be trained.

        Raises:
            ValueError: the layer at one of the positions cannot be packed.
        """
        layers, self.task_view = all_layers(self), TaskView(tuple(sees), frozen)
        for place in places:
            layer = layers[place] if place < len(layers) else None
            if layer is None or type(layer) not in PACKED_CLASSES:
                raise ValueError(
                    f"trunk '{self.name}' has {layer!r} at position {place}, which cannot be "
                    "packed; if it is a layer of your own, call packnet_tf.register_packed for it "
                    "first"
                )
            pack_layer(layer, self.task_view)
        view_once_per_sequence(layers)

    def packed_layers(self) -> list[Packed]:
        """Returns the packed layers, in the order of the trunk's structure."""
        return [layer for layer in all_layers(self) if isinstance(layer, Packed)]

    def packed_weights(self) -> dict[str, PackedWeight]:
        """Returns the packed weights by path; a layer with several weights adds their names."""
        weights = {}
        for path, layer in self.paths():
            for name, weight in layer.packed_weights.items() if isinstance(layer, Packed) else ():
                key = path if len(layer.packed_weights) == 1 else f"{path}/{name}"
                while key in weights:  # nested layers may share a name
                    key += "_"
                weights[key] = weight
        return weights

    def paths(self) -> Iterator[tuple[str, keras.layers.Layer]]:
        """Yields all layers, nested layers included, each with its path of names."""
        return _paths(self.layers, "", set())

    def count_params(self) -> int:
        return count_network_params(self)

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
        """Undoes assignments in the block that would change committed weights.

        Args:
            variables: all variables that the block may assign, those of the view included.

        Raises:
            RuntimeError, ValueError: see `check_new_values`. All variables then have their old
                values.
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
        return config | {"still": _frozen_places(layers)}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "PackedTrunk":
        config = changed(config, with_skipped_init)
        packed, still = dict(config.pop("packed")), config.pop("still")
        if "task" in packed:  # files of format 5
            packed["sees"] = range(1, packed.pop("task") + 1)
        create = super().from_config
        trunk = limited(lambda: create(changed(config, dict), custom_objects))
        layers = all_layers(trunk)
        restore_initializers(layers)
        trunk.pack_layers(**packed)
        _freeze_places(layers, **still)
        return trunk


def _frozen_places(layers: Sequence[keras.layers.Layer]) -> dict[str, list]:
    """Lists frozen weights and frozen layers by position.

    Keras's configurations record `trainable` only for whole layers of the graph.

    Returns:
        A dict with `layers`, positions of frozen layers, and `weights`, pairs of a layer's
        position and the weight's index among the layer's `own_variables`.
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


def _freeze_places(built: Sequence[keras.layers.Layer], layers: list, weights: list) -> None:
    """Freezes the layers and weights that `_frozen_places` listed, and no others."""
    for place, layer in enumerate(built):  # outer layers first: they freeze and free inner ones
        if layer.trainable == (place in layers):
            layer.trainable = place not in layers
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
