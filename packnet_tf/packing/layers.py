"""Packed layers: Keras layers whose kernels several tasks share.

A Keras layer creates its kernel in `build` and reads it as `self.kernel`. `pack_layer` takes a
built layer, wherever it is nested (in a graph, a wrapper, an attention layer, a recurrent layer or
a custom layer). It replaces the kernel by the variables of a `PackedWeight` and changes the
layer's class to one whose `kernel` property returns the task's view. Nothing else of the layer
changes, so one mixin serves all layer classes. `registry.py` lists the classes.
"""

import dataclasses
import functools
import math
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
from packnet_tf.packing.recurrent import held_view
from packnet_tf.packing.weight import (
    OVERLAY_NUMBER,
    OverlaidWeight,
    PackedWeight,
    clear,
    of_kind,
    own_number,
)


@dataclasses.dataclass
class TaskView:
    """What the packed layers of a trunk show: a single task, which never changes.

    Several views can therefore be used in turn.

    Attributes:
        sees: numbers of the tasks whose weights are visible, ascending. The last is the task's
            own number, whose claim is visible too. Empty: all weights are 0.
        frozen: whether the view cannot be trained; it then has no trainable weights or claims,
            unless they are its overlay.
        shared: whether the variables belong to other layers, those of the store.
        is_open: returns whether the layers may be changed: the task is being trained, or the trunk
            belongs to no pack.
    """

    sees: tuple[int, ...] = ()
    frozen: bool = False
    shared: bool = False
    is_open: Callable[[], bool] = lambda: True

    @property
    def has_overlay(self) -> bool:
        """Whether the task has an overlay; trainable weights and claims are then the view's own."""
        return own_number(self.sees) == OVERLAY_NUMBER

    @property
    def trains(self) -> bool:
        """Whether the layers have trainable weights and claims."""
        return self.has_overlay or not self.frozen


# Packed class by Keras class; every subclass of `Packed` registers itself here.
PACKED_CLASSES: dict[type[keras.Layer], type["Packed"]] = {}

if TYPE_CHECKING:
    _Mixed = keras.Layer  # the base class that the mixin expects
else:
    _Mixed = object


class Store(Protocol):
    """The container in which Keras stores a layer's variables: a group of an HDF5 file."""

    def __getitem__(self, name: str) -> np.ndarray: ...

    def __setitem__(self, name: str, value: keras.Variable | np.ndarray) -> None: ...

    def keys(self) -> Iterable[str]: ...


class Packed(_Mixed):
    """Mixin for a `keras.layers.Layer`: packs the weights that `packed_names` lists.

    Subclass it together with a layer class to make that layer packable. `register_packed` does
    the same.

    Attributes:
        packed_names: names of the weights to pack; once the layer is built, each is an attribute
            that holds a variable.
        plain: the Keras class that this class packs.
        packed_weights: dict from a packed name to its `PackedWeight`.
        task_view: the `TaskView` that all layers of the trunk share.

    Example:
        >>> class MyDense(keras.layers.Dense):
        ...     pass
        >>> class MyPackedDense(packnet_tf.Packed, MyDense):
        ...     packed_names = ("kernel",)
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
        _register(cls)

    @classmethod
    def from_config(cls, config: dict) -> keras.Layer:
        """Creates the plain layer; `PackedTrunk` knows which layers to pack, and for which task."""
        return cls.plain.from_config(config)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        # The views of all tasks share the trainable kernels. The view of a committed task must
        # not switch them off (or on) for the task that trains them now.
        view, shared = self.task_view, []
        if not (view.frozen or view.has_overlay or view.is_open()):
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
        # Keras reads every listed attribute when it saves and loads; reading a kernel computes it.
        return [name for name in super().__dir__() if name not in self.packed_names]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        check_new_values(self, self.weights, weights)
        super().set_weights(weights)

    def save_own_variables(self, store: Store) -> None:
        for i, variable in enumerate(own_variables(self)):
            store[str(i)] = variable  # not an array: Keras would copy it once more
        for name, weight in self.packed_weights.items():
            store[name] = weight.packed
            store[f"{name}_owner"] = bits.pack(ops.convert_to_numpy(weight.owner))
            if weight.claim is not None and weight.claimed():
                store[f"{name}_claim"] = bits.pack(ops.convert_to_numpy(weight.claim))
                store[f"trainable_{name}"] = weight.trained[0]

    def load_own_variables(self, store: Store) -> None:
        self.refuse_closed("load weights into")
        for i, variable in enumerate(own_variables(self)):
            variable.assign(of_kind(variable, store[str(i)]))
        for name, weight in self.packed_weights.items():
            values = of_kind(weight.packed, store[name])
            owner = bits.unpack(np.asarray(store[f"{name}_owner"]), weight.owner.shape)
            if self.task_view.shared:
                self.check_same_pack(weight, values, owner)
            weight.packed.assign(values)
            weight.owner.assign(owner)
            if weight.claim is None:
                continue
            if f"{name}_claim" in store.keys():  # noqa: SIM118  a store is not a dict
                trainable, claim = weight.trained
                claim.assign(bits.unpack(np.asarray(store[f"{name}_claim"]), claim.shape))
                trainable.assign(of_kind(trainable, store[f"trainable_{name}"]))
            else:
                clear(weight.claim)

    def count_params(self) -> int:
        return count_network_params(self)

    def refuse_closed(self, action: str) -> None:
        """Refuses an action on a layer that does not belong to the open task.

        Raises:
            RuntimeError: the layer's task is committed or discarded, or it belongs to a preview.
        """
        if not self.task_view.is_open():
            raise RuntimeError(
                f"Cannot {action} layer '{self.name}': its task is committed or discarded, or it "
                "only shows the pack. Take the model of the open task, net.open_model."
            )

    def check_same_pack(
        self, weight: PackedWeight, values: np.ndarray, owner: np.ndarray, loaded: bool = True
    ) -> None:
        """Refuses values and owners that differ from those of committed tasks.

        Args:
            weight: the packed weight.
            values, owner: new values of its variables.
            loaded: whether they come from a file.

        Raises:
            ValueError: they belong to another pack or another state of this one.
        """
        ours = ops.convert_to_numpy(weight.owner)
        committed = ours > 0
        kept = ops.convert_to_numpy(weight.packed)[committed]
        if np.array_equal(ours, owner) and np.array_equal(kept, values[committed]):
            return
        if loaded:
            raise ValueError(
                f"Cannot load these weights: in layer '{self.name}' the weights of committed tasks "
                "differ from this pack's, so the file belongs to another pack or to an earlier "
                "state of this one, and loading it would make those tasks forget. Load a file "
                "saved since the last commit of this pack, or open that pack with packnet_tf.load."
            )
        raise ValueError(
            f"Cannot set these weights: in layer '{self.name}' the weights of committed tasks "
            "differ from this pack's, so they belong to another pack or to an earlier state of "
            "this one, and those tasks would forget. Averages of get_weights() differ, too, by "
            "rounding: average model.trainable_variables alone, or let the optimizer do it, "
            "use_ema=True."
        )


def _register(cls: type[Packed]) -> None:
    """Registers a packed class with Keras, so that no other class of its name is taken for it."""
    origin, short = _origin(cls), f"packnet_tf>{cls.__name__}"
    taken = keras.saving.get_registered_object(short)
    free = taken is None or _origin(taken) == origin  # a cell of a notebook defines one again
    by_package = ">" in keras.saving.get_registered_name(cls.plain)
    name = f"{origin}.{cls.__name__}" if by_package or not free else cls.__name__
    keras.saving.register_keras_serializable("packnet_tf", name)(cls)
    if free:  # the name in files of packnet_tf 0.2.0 and before
        keras.saving.get_custom_objects()[short] = cls


def _origin(cls: type[Packed]) -> str:
    """Returns the package that the plain class is registered with, or else its module."""
    package, found, _ = keras.saving.get_registered_name(cls.plain).partition(">")
    return package if found else cls.plain.__module__


def check_new_values(
    holder: keras.layers.Layer, variables: Sequence[keras.Variable], values: Sequence[np.ndarray]
) -> None:
    """Refuses new values of packed variables that would change committed weights.

    Args:
        holder: a packed layer, or a layer or model that contains packed layers.
        variables: the variables to assign.
        values: an array for each variable.

    Raises:
        RuntimeError: a layer's task is committed or discarded.
        ValueError: the values belong to another pack or another state of this one.
    """
    if len(variables) != len(values):
        return  # Keras raises an error for that
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
                layer.check_same_pack(weight, packed, owner, loaded=False)


def network_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns a layer's weights, one per packed weight: those of the network that a task sees.

    Args:
        layer: a layer or model, packed or not, with packed layers within or not.
    """
    others: set[int] = set()
    for part in all_layers(layer):
        for weight in part.packed_weights.values() if isinstance(part, Packed) else ():
            others |= {id(variable) for variable in weight.variables[1:]}
    return [variable for variable in layer.weights if id(variable) not in others]


def count_network_params(layer: keras.layers.Layer) -> int:
    """Counts the parameters of `network_weights`, as `count_params` of a plain layer does."""
    return sum(math.prod(variable.shape) for variable in network_weights(layer))


def guard(holder: keras.layers.Layer) -> None:
    """Makes a layer that contains packed layers check new weights, and count those of a task."""
    unguarded = type(holder).set_weights

    def set_weights(weights: Sequence[np.ndarray]) -> None:
        check_new_values(holder, holder.weights, weights)
        unguarded(holder, weights)

    unlock(holder)
    holder.set_weights = set_weights  # type: ignore[method-assign]  # this instance only
    holder.count_params = functools.partial(  # type: ignore[method-assign]
        count_network_params, holder
    )


def _view_property(name: str) -> property:
    def view(layer: Packed) -> Tensor:
        weight, shown = layer.packed_weights[name], layer.task_view
        held = held_view(layer, name)
        if held is not None:
            return ops.cast(held, weight.packed.dtype)
        if shown.frozen or not shown.is_open():
            return weight.view(shown.sees)
        return training_view(weight, shown.sees)

    return property(view)


def plain_class(layer: keras.Layer) -> type[keras.Layer]:
    """Returns the Keras class of a layer, whether the layer is packed or not."""
    return getattr(type(layer), "plain", type(layer))


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns a layer's variables that are not packed (its bias, say), without nested layers."""
    packed = layer.packed_weights.values() if isinstance(layer, Packed) else ()
    ours = {id(variable) for weight in packed for variable in weight.variables}
    every = direct_variables(layer)
    return [variable for variable in every if id(variable) not in ours]


def pack_layer(layer: keras.layers.Layer, view: TaskView, source: Packed | None = None) -> None:
    """Turns a built layer of a class in `PACKED_CLASSES` into a packed one, in place.

    Args:
        layer: the plain layer. Its kernel becomes the trainable variable and keeps its constraint
            and regularizer. The kernel's values become the restart values of free weights.
        view: what the layer shows.
        source: a packed layer whose variables to share; None: create new variables. Of these, a
            view with an overlay shares `packed` and `owner`.
    """
    cls = PACKED_CLASSES[type(layer)]
    packed = {}
    unlock(layer)
    for name in cls.packed_names:
        kernel = getattr(layer, name, None)
        if kernel is None:  # a tied ReversibleEmbedding has no second matrix
            continue
        shared = source.packed_weights[name] if source else None
        weight = shared
        if weight is None or view.has_overlay:
            weight = _new_weight(layer, name, kernel, view, shared)
        if not view.trains:
            weight = PackedWeight(None, weight.packed, weight.owner, None)
            held = weight.packed
        else:
            held, _ = weight.trained
            # An earlier task's view may have frozen it.
            held.trainable = True
        packed[name] = weight
        if held is not kernel:
            _replace(layer, kernel, held)
        # Set as attributes, so that Keras tracks variables that another layer created.
        setattr(layer, f"packed_{name}", weight.packed)
        setattr(layer, f"{name}_owner", weight.owner)
        if weight.claim is not None:
            setattr(layer, f"{name}_claim", weight.claim)
    lock(layer)
    layer.__class__ = cls
    del layer.quantize  # set by Keras on every instance; it would hide Packed.quantize
    layer.packed_weights, layer.task_view = packed, view


def _new_weight(
    layer: keras.Layer,
    name: str,
    kernel: keras.Variable,
    view: TaskView,
    shared: PackedWeight | None,
) -> PackedWeight:
    """Creates the variables of a packed weight, except those that it shares."""
    fixed = {"shape": kernel.shape, "trainable": False}
    zeros = {**fixed, "initializer": "zeros", "dtype": owner_dtype(), "autocast": False}
    if shared is None:
        # All weights are free at first; their restart values are the kernel's values.
        packed = layer.add_weight(
            name=f"packed_{name}", dtype=kernel.dtype, initializer=lambda *_, **__: kernel.value,
            **fixed,
        )  # fmt: skip
        owner = layer.add_weight(name=f"{name}_owner", **zeros)
    else:
        packed, owner = shared.packed, shared.owner
    if not view.trains:
        return PackedWeight(None, packed, owner, None)
    claim = layer.add_weight(name=f"{name}_claim", **zeros)
    clear(kernel)
    return (OverlaidWeight if view.has_overlay else PackedWeight)(kernel, packed, owner, claim)


def _replace(layer: keras.Layer, old: keras.Variable, new: keras.Variable) -> None:
    """Replaces a variable of a layer, under whichever attribute it is stored."""
    tracked = trained_variables(layer)
    place = next(place for place, variable in enumerate(tracked) if variable is old)
    untrack(layer, old)
    unlock(layer)
    for attribute, value in list(vars(layer).items()):
        if value is old:
            setattr(layer, attribute, new)
    if tracked and tracked[-1] is new:
        tracked.insert(place, tracked.pop())
