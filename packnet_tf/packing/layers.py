"""Packed layers: Keras layers whose kernels several tasks share.

A Keras layer makes its kernel in `build` and reads it as `self.kernel`. `pack_layer` takes a built
layer of any kind, wherever it stands (in a graph, in a wrapper, in attention, in a recurrent layer,
in a layer of one's own), puts the variables of a `PackedWeight` in the kernel's place, and gives
the layer a class on which `kernel` answers with the view of the layer's task. Nothing else of the
layer changes, so one mixin serves them all. `packable.py` lists the layers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.distribution import owner_dtype
from packnet_tf.backend.keras_internals import (
    all_layers,
    direct_variables,
    lock,
    trained_variables,
    unlock,
    untrack,
)
from packnet_tf.backend.types import Tensor
from packnet_tf.packing import bits
from packnet_tf.packing.fused_view import training_view
from packnet_tf.packing.weight import PackedWeight, clear


@dataclasses.dataclass
class TaskView:
    """What the packed layers of a trunk show: one task for all their life, so that views can be
    used in turn.

    Attributes:
        sees: numbers of the tasks whose weights they show, ascending; the last is that of their
            own task, whose claim they show too. Empty shows no weight at all.
        frozen: whether it can only be looked at: there is then no trainable weight or claim.
        shared: whether the variables are those of other layers, the store's.
        is_open: whether the task is being trained, or is of no pack.
    """

    sees: tuple[int, ...] = ()
    frozen: bool = False
    shared: bool = False
    is_open: Callable[[], bool] = lambda: True


# From a Keras class to its packed one; every subclass of `Packed` puts itself here.
PACKED_CLASSES: dict[type[keras.Layer], type["Packed"]] = {}

if TYPE_CHECKING:
    _Mixed = keras.Layer  # what the mixin is mixed into
else:
    _Mixed = object


class Store(Protocol):
    """What Keras keeps the variables of a layer in: a group of an HDF5 file."""

    def __getitem__(self, name: str) -> np.ndarray: ...

    def __setitem__(self, name: str, value: keras.Variable | np.ndarray) -> None: ...

    def keys(self) -> Iterable[str]: ...


class Packed(_Mixed):
    """Mixin for a `keras.layers.Layer`: packs the weights that `packed_names` lists.

    Subclass it together with a layer class to make that layer packable, which is all that
    `register_packed` does:

        class PackedBilinear(packnet_tf.Packed, Bilinear):
            packed_names = ("left", "right")

    Attributes:
        packed_names: the weights to pack: attributes that hold a variable once the layer is built.
        plain: the Keras class that this one packs.
        packed_weights: dict from a packed name to its `PackedWeight`.
        task_view: what the layer shows; all layers of a trunk have the same.
    """

    packed_names: tuple[str, ...] = ()
    plain: type[keras.Layer]
    packed_weights: dict[str, PackedWeight]
    task_view: TaskView

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        layers = [base for base in cls.__bases__ if issubclass(base, keras.layers.Layer)]
        cls.plain = next(base for base in layers if not issubclass(base, Packed))
        for name in cls.packed_names:
            setattr(cls, name, _view_property(name))
        PACKED_CLASSES[cls.plain] = cls
        keras.saving.register_keras_serializable("packnet_tf", cls.__name__)(cls)

    @classmethod
    def from_config(cls, config: dict) -> keras.Layer:
        """The plain layer: what is packed, and for which task, is known to the `PackedTrunk`."""
        return cls.plain.from_config(config)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        # The trainable kernels are shared by the views of all tasks: once its task is committed,
        # a view must not switch them off (or on) for the task that trains them now.
        view, shared = self.task_view, []
        if not (view.frozen or view.is_open()):
            shared = [weight.trained[0] for weight in self.packed_weights.values()]
        flags = [variable.trainable for variable in shared]
        vars(keras.layers.Layer)["trainable"].fset(self, value)
        for variable, flag in zip(shared, flags, strict=True):
            variable.trainable = flag

    def enable_lora(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"Layer '{self.name}' is packed: LoRA would move the kernels of committed tasks. "
            "Enable LoRA on the plain model that net.unpack(task) returns."
        )

    def quantize(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"Layer '{self.name}' is packed: quantizing it would move the kernels of committed "
            "tasks. Quantize the exported ONNX file, or the model that net.unpack(task) returns."
        )

    def __dir__(self) -> list[str]:
        # Keras looks at every attribute there is when it saves and loads, and to look at a kernel
        # is to calculate it.
        return [name for name in super().__dir__() if name not in self.packed_names]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        check_new_values(self, self.weights, weights)
        super().set_weights(weights)

    def save_own_variables(self, store: Store) -> None:
        for i, variable in enumerate(own_variables(self)):
            store[str(i)] = variable  # Keras makes an array of it; of an array it makes a copy
        for name, weight in self.packed_weights.items():
            store[name] = weight.packed
            store[f"{name}_owner"] = bits.pack(ops.convert_to_numpy(weight.owner))
            if weight.claim is not None and weight.claimed():
                store[f"{name}_claim"] = bits.pack(ops.convert_to_numpy(weight.claim))
                store[f"trainable_{name}"] = weight.trained[0]

    def load_own_variables(self, store: Store) -> None:
        self.refuse_closed("load weights into")
        for i, variable in enumerate(own_variables(self)):
            variable.assign(store[str(i)])
        for name, weight in self.packed_weights.items():
            values = np.asarray(store[name])
            owner = bits.unpack(np.asarray(store[f"{name}_owner"]), weight.owner.shape)
            if self.task_view.shared:
                self.check_same_pack(weight, values, owner)
            weight.packed.assign(values)
            weight.owner.assign(owner)
            if weight.claim is None:
                continue
            if f"{name}_claim" in store.keys():  # noqa: SIM118  a store is no dict
                trainable, claim = weight.trained
                claim.assign(bits.unpack(np.asarray(store[f"{name}_claim"]), claim.shape))
                trainable.assign(np.asarray(store[f"trainable_{name}"]))
            else:
                clear(weight.claim)

    def refuse_closed(self, action: str) -> None:
        """Refuses what would change a committed task, or the open one through another's view.

        Raises:
            RuntimeError: the layer's task is not open.
        """
        if not self.task_view.is_open():
            raise RuntimeError(
                f"Cannot {action} layer '{self.name}': its task is committed or discarded. Take "
                "the model of the open task, net.open_model."
            )

    def check_same_pack(self, weight: PackedWeight, values: np.ndarray, owner: np.ndarray) -> None:
        """Refuses values and owners that would change what committed tasks own.

        Raises:
            ValueError: they are not this pack's.
        """
        ours = ops.convert_to_numpy(weight.owner)
        committed = ours > 0
        kept = ops.convert_to_numpy(weight.packed)[committed]
        if not (np.array_equal(ours, owner) and np.array_equal(kept, values[committed])):
            raise ValueError(
                f"Cannot load these weights: in layer '{self.name}' the weights of committed tasks "
                "differ from this pack's, so the file belongs to another pack or to an earlier "
                "state of this one, and loading it would make those tasks forget. Load a file "
                "saved since the last commit of this pack, or open that pack with packnet_tf.load."
            )


def check_new_values(
    holder: keras.layers.Layer, variables: Sequence[keras.Variable], values: Sequence[np.ndarray]
) -> None:
    """Refuses values for variables of packed layers that would change what committed tasks own.

    Args:
        holder: a layer that is packed or has packed ones in it.
        variables: those that get values; of the holder, or of what holds it.
        values: an array for each.

    Raises:
        RuntimeError: a layer's task is committed or discarded.
        ValueError: the values are not this pack's.
    """
    if len(variables) != len(values):
        return  # Keras has a sentence for that
    new = {id(variable): value for variable, value in zip(variables, values, strict=True)}
    for layer in all_layers(holder):
        if not (isinstance(layer, Packed) and layer.task_view.shared):
            continue
        for weight in layer.packed_weights.values():
            packed, owner = (new.get(id(variable)) for variable in (weight.packed, weight.owner))
            if packed is not None or owner is not None:
                layer.refuse_closed("set the weights of")
            if packed is None or owner is None:
                continue
            if np.shape(packed) == np.shape(owner) == tuple(weight.packed.shape):
                layer.check_same_pack(weight, packed, owner)


def guard(holder: keras.layers.Layer) -> None:
    """Has `set_weights` of a layer that is not packed, but has packed ones in it, checked too."""
    unguarded = type(holder).set_weights

    def set_weights(weights: Sequence[np.ndarray]) -> None:
        check_new_values(holder, holder.weights, weights)
        unguarded(holder, weights)

    unlock(holder)
    holder.set_weights = set_weights  # type: ignore[method-assign]  # of this holder alone


def _view_property(name: str) -> property:
    def view(layer: Packed) -> Tensor:
        weight, shown = layer.packed_weights[name], layer.task_view
        if shown.frozen or not shown.is_open():
            return weight.view(shown.sees)
        return training_view(weight, shown.sees)

    return property(view)


def plain_class(layer: keras.Layer) -> type[keras.Layer]:
    """The Keras class of a layer, whether or not this package has given it one of its own."""
    return getattr(type(layer), "plain", type(layer))


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a layer itself that are not packed, its bias for instance."""
    packed = layer.packed_weights.values() if isinstance(layer, Packed) else ()
    ours = {id(variable) for weight in packed for variable in weight.variables}
    every = direct_variables(layer)
    return [variable for variable in every if id(variable) not in ours]


def pack_layer(layer: keras.layers.Layer, view: TaskView, source: Packed | None = None) -> None:
    """Makes a built layer of a class in `PACKED_CLASSES` a packed one, in place.

    Args:
        layer: the plain layer. Its kernel becomes the trainable variable, with its constraint and
            regularizer, and its values the restart values of free weights.
        view: what it shows.
        source: a packed layer whose variables it uses, instead of having its own.
    """
    cls = PACKED_CLASSES[type(layer)]
    packed = {}
    unlock(layer)
    for name in cls.packed_names:
        kernel = getattr(layer, name, None)
        if kernel is None:  # ReversibleEmbedding has a second matrix only where it is not tied
            continue
        weight = source.packed_weights[name] if source else _new_weight(layer, name, kernel, view)
        if view.frozen:
            weight = PackedWeight(None, weight.packed, weight.owner, None)
            held = weight.packed
        else:
            held, _ = weight.trained
            # An earlier task may have frozen it; this view's task has not.
            held.trainable = True
        packed[name] = weight
        if held is not kernel:
            _replace(layer, kernel, held)
        # As attributes, so that Keras tracks variables which another layer has made.
        setattr(layer, f"packed_{name}", weight.packed)
        setattr(layer, f"{name}_owner", weight.owner)
        if not view.frozen:
            setattr(layer, f"{name}_claim", weight.claim)
    lock(layer)
    layer.__class__ = cls
    del layer.quantize  # Keras puts the class's method, wrapped, on every instance
    layer.packed_weights, layer.task_view = packed, view


def _new_weight(
    layer: keras.Layer, name: str, kernel: keras.Variable, view: TaskView
) -> PackedWeight:
    fixed = {"shape": kernel.shape, "trainable": False}
    zeros = {**fixed, "initializer": "zeros", "dtype": owner_dtype(), "autocast": False}
    weight = PackedWeight(
        trainable=None if view.frozen else kernel,
        # Every weight is free now, and starts from what it was.
        packed=layer.add_weight(
            name=f"packed_{name}", dtype=kernel.dtype, initializer=lambda *_, **__: kernel.value,
            **fixed,
        ),
        owner=layer.add_weight(name=f"{name}_owner", **zeros),
        claim=None if view.frozen else layer.add_weight(name=f"{name}_claim", **zeros),
    )  # fmt: skip
    if not view.frozen:
        clear(kernel)
    return weight


def _replace(layer: keras.Layer, old: keras.Variable, new: keras.Variable) -> None:
    """Puts one variable of a layer in the place of another, whatever attribute holds it."""
    tracked = trained_variables(layer)
    place = next(place for place, variable in enumerate(tracked) if variable is old)
    untrack(layer, old)
    unlock(layer)
    for attribute, value in list(vars(layer).items()):
        if value is old:
            setattr(layer, attribute, new)
    if tracked and tracked[-1] is new:
        tracked.insert(place, tracked.pop())
