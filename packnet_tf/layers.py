"""Packed layers: Keras layers whose kernels several tasks share.

One mixin packs them all. A Keras layer asks for its kernel with `add_weight(name="kernel")` and
reads it as `self.kernel`; the mixin answers the first with a `PackedWeight` and the second with
the view of the layer's task. To pack another layer, add a line to the list at the end of this
module, or call `register_packed` for a layer of your own.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from packnet_tf import bits
from packnet_tf.packed_weight import PackedWeight


class Packed:
    """Mixin for a `keras.layers.Layer`: packs the weights that `packed_names` lists.

    Args:
        task: number of the task whose view the layer shows, from 1; 0 shows no weight at all. A
            layer shows one task for all its life, which is what lets views be used in turn.
        frozen: whether the view can only be looked at: it then has no trainable weight or claim.

    Attributes:
        packed: dict from a packed name to its `PackedWeight`.
    """

    packed_names: tuple[str, ...] = ()

    def __init__(self, *args, task: int = 0, frozen: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.task = task
        self.frozen = frozen
        self.closed = False
        self.shared = False
        self.packed: dict[str, PackedWeight] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in cls.packed_names:
            setattr(cls, name, _view_property(name))

    def share(self, packed: dict[str, PackedWeight]) -> None:
        """Uses the variables of another packed layer instead of making some. Before building."""
        self.packed = dict(packed)
        self.shared = True

    def add_weight(self, *args, name=None, **kwargs):
        if name not in self.packed_names:
            return super().add_weight(*args, name=name, **kwargs)
        weight = self.packed.get(name) or self._add_packed_weight(*args, name=name, **kwargs)
        if self.frozen:
            weight = PackedWeight(None, weight.packed, weight.owner, None)
        self.packed[name] = weight
        # As attributes, so that Keras tracks variables which another layer has made.
        setattr(self, f"packed_{name}", weight.packed)
        setattr(self, f"{name}_owner", weight.owner)
        if self.frozen:
            return weight.packed
        # An earlier task may have frozen it; this view's task has not.
        weight.trainable.trainable = True
        setattr(self, f"trainable_{name}", weight.trainable)
        setattr(self, f"{name}_claim", weight.claim)
        return weight.trainable

    def _add_packed_weight(self, *args, name, initializer=None, **kwargs):
        del initializer  # the values come from the trunk, or from a file
        add = super().add_weight
        shape, dtype = kwargs.get("shape", args[0] if args else ()), kwargs.get("dtype")
        fixed = {"shape": shape, "initializer": "zeros", "trainable": False}
        whole = {"dtype": "uint8", "autocast": False}
        trainable = claim = None
        if not self.frozen:
            trainable = add(*args, name=f"trainable_{name}", initializer="zeros", **kwargs)
            claim = add(name=f"{name}_claim", **fixed, **whole)
        packed = add(name=f"packed_{name}", dtype=dtype, **fixed)
        owner = add(name=f"{name}_owner", **fixed, **whole)
        return PackedWeight(trainable, packed, owner, claim)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        # The trainable kernels are shared by the views of all tasks: once its task is committed,
        # a view must not switch them off (or on) for the task that trains them now.
        shared = [w.trainable for w in self.packed.values() if self.closed and not self.frozen]
        flags = [variable.trainable for variable in shared]
        keras.layers.Layer.trainable.fset(self, value)
        for variable, flag in zip(shared, flags, strict=True):
            variable.trainable = flag

    @property
    def own_variables(self) -> list[keras.Variable]:
        """The layer's variables that are not packed, its bias for instance."""
        ours = {id(v) for weight in self.packed.values() for v in weight.variables}
        every = self._trainable_variables + self._non_trainable_variables
        return [variable for variable in every if id(variable) not in ours]

    def enable_lora(self, *args, **kwargs):
        raise ValueError(
            f"Layer '{self.name}' is packed: LoRA would move the kernels of committed tasks. "
            "Enable LoRA on the plain model that net.unpack(task) returns."
        )

    def quantize(self, *args, **kwargs):
        raise ValueError(
            f"Layer '{self.name}' is packed: quantizing it would move the kernels of committed "
            "tasks. Quantize the exported ONNX file, or the model that net.unpack(task) returns."
        )

    def get_config(self):
        return {**super().get_config(), "task": self.task, "frozen": self.frozen}

    def save_own_variables(self, store):
        for i, variable in enumerate(self.own_variables):
            store[str(i)] = ops.convert_to_numpy(variable)
        for name, weight in self.packed.items():
            store[name] = ops.convert_to_numpy(weight.packed)
            store[f"{name}_owner"] = bits.pack(ops.convert_to_numpy(weight.owner))
            if weight.claim is not None and weight.claimed():
                store[f"{name}_claim"] = bits.pack(ops.convert_to_numpy(weight.claim))
                store[f"trainable_{name}"] = ops.convert_to_numpy(weight.trainable)

    def load_own_variables(self, store):
        for i, variable in enumerate(self.own_variables):
            variable.assign(store[str(i)])
        for name, weight in self.packed.items():
            values = np.asarray(store[name])
            owner = bits.unpack(np.asarray(store[f"{name}_owner"]), weight.owner.shape)
            if self.shared:
                self.check_same_pack(weight, values, owner)
            weight.packed.assign(values)
            weight.owner.assign(owner)
            if weight.claim is None:
                continue
            if f"{name}_claim" in store.keys():  # noqa: SIM118  a store is no dict
                claim = bits.unpack(np.asarray(store[f"{name}_claim"]), weight.claim.shape)
                weight.claim.assign(claim)
                weight.trainable.assign(np.asarray(store[f"trainable_{name}"]))
            else:
                weight.claim.assign(ops.zeros_like(weight.claim))

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


def _view_property(name: str) -> property:
    def view(self):
        if name not in self.packed:
            raise AttributeError(f"You must build the layer before accessing `{name}`.")
        return self.packed[name].view(self.task)

    def kept_by_add_weight(self, value):
        """Layers that write `self.kernel = self.add_weight(...)` land here."""

    return property(view, kept_by_add_weight)


_packed_classes: dict[type, type] = {}
_plain_classes: dict[type, type] = {}


def register_packed(layer_class: type, variables: Sequence[str] = ("kernel",)) -> type:
    """Makes a layer class packable: `PackNet` then packs the layers of exactly this class.

    The layer must create these weights in `build` with `self.add_weight(name=...)` and read them
    in `call` as `self.<name>`; its other weights follow the policy for biases and normalisation.

    Args:
        layer_class: a `keras.layers.Layer` subclass with `get_config`.
        variables: names of the weights to pack.

    Returns:
        The packed class, registered with Keras as `packnet_tf>Packed<name>`.

    Raises:
        ValueError: no variable is named, or the class is packed already.

    Example:
        >>> packnet_tf.register_packed(MyDense, variables=["kernel"])
    """
    if not variables or isinstance(variables, str):
        raise ValueError(
            f"register_packed needs the names of the weights to pack, a list; got {variables!r}. "
            'Write variables=["kernel"].'
        )
    if issubclass(layer_class, Packed):
        raise ValueError(
            f"{layer_class.__name__} is a packed class already; register the plain Keras class."
        )
    name = f"Packed{layer_class.__name__}"
    doc = f"`{layer_class.__name__}` with {', '.join(variables)} packed; see `Packed`."
    body = {"packed_names": tuple(variables), "__doc__": doc, "__module__": __name__}
    packed = type(name, (Packed, layer_class), body)
    keras.saving.register_keras_serializable("packnet_tf", name)(packed)
    _packed_classes[layer_class], _plain_classes[packed] = packed, layer_class
    return packed


def packed_class(layer) -> type | None:
    """The packed class for a plain layer; None where its kind is not packed.

    Raises:
        ValueError: the layer's class only inherits from a packable one, so what its own code does
            with the kernel is unknown; or the layer is quantized or LoRA-enabled.
    """
    cls = type(layer)
    if cls not in _packed_classes:
        base = next((base for base in cls.__mro__ if base in _packed_classes), None)
        if base is None:
            return None
        names = list(_packed_classes[base].packed_names)
        raise ValueError(
            f"Layer '{layer.name}' is a {cls.__name__}, a subclass of {base.__name__} that is not "
            f"registered for packing. If it reads its kernel as {base.__name__} does, call "
            f"packnet_tf.register_packed({cls.__name__}, variables={names}) first."
        )
    state = "quantized" if getattr(layer, "quantization_mode", None) else None
    state = "LoRA-enabled" if getattr(layer, "lora_enabled", False) else state
    if state:
        raise ValueError(
            f"Cannot pack layer '{layer.name}': it is {state}, so its kernel is not one plain "
            "float variable. Build the PackNet from the float model without it, and quantize or "
            "adapt the model that net.unpack(task) returns."
        )
    return _packed_classes[cls]


def plain_class(layer) -> type:
    """The Keras class that a packed layer packs."""
    return _plain_classes[type(layer)]


def packed_weights(trunk) -> dict[str, PackedWeight]:
    """The packed weights of a trunk by path: the layer's, and the weight's if it has several."""
    weights: dict[str, PackedWeight] = {}
    seen: set[int] = set()

    def visit(layers, prefix):
        for layer in layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = f"{prefix}{layer.name}"
            if isinstance(layer, Packed):
                for name, weight in layer.packed.items():
                    weights[path if len(layer.packed) == 1 else f"{path}/{name}"] = weight
            visit(getattr(layer, "layers", None) or layer._layers, f"{path}/")

    visit(trunk.layers, "")
    return weights


for _class in (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
):
    register_packed(_class)
for _class in (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D):
    register_packed(_class)
for _class in (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D):
    register_packed(_class, variables=("depthwise_kernel", "pointwise_kernel"))
del _class
