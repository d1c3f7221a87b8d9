"""The table of packable layer classes, and `register_packed` to extend it."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from packnet_tf.backend.keras_internals import all_layers, direct_variables
from packnet_tf.packing.layers import PACKED_CLASSES, Packed
from packnet_tf.packing.policy import Policy, stem_layers

# Packed only on request: most tasks use few rows, so magnitudes say little about their use.
EMBEDDINGS = (keras.layers.Embedding,)


def register_packed(
    layer_class: type[keras.Layer], variables: Sequence[str] = ("kernel",)
) -> type[Packed]:
    """Makes a layer class packable, so that `PackNet` packs layers of exactly this class.

    A built layer must hold each named weight in an attribute of that name, as one float variable,
    and read it as `self.<name>` in every call. The layer's other weights follow the policy for
    biases and normalisation. Layers nested in it are packed by their own classes.

    Args:
        layer_class: a `keras.layers.Layer` subclass with `get_config`.
        variables: names of the weights to pack.

    Returns:
        The packed class, a subclass of `Packed`, registered with Keras as
        `packnet_tf>Packed<name>`, or `packnet_tf><package>.Packed<name>` if `layer_class` is
        registered with a package.

    Raises:
        ValueError: `variables` names no weight, or the class is packed already.

    Example:
        >>> class MyDense(keras.layers.Dense):
        ...     pass
        >>> packed = packnet_tf.register_packed(MyDense, variables=["kernel"])
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
    doc = f"`{layer_class.__name__}` with {', '.join(variables)} packed; see `Packed`."
    body = {"packed_names": tuple(variables), "__doc__": doc, "__module__": __name__}
    type(f"Packed{layer_class.__name__}", (Packed, layer_class), body)  # registers itself
    return PACKED_CLASSES[layer_class]


def packable_layers(trunk: keras.Model, policy: Policy) -> set[int]:
    """Finds the layers to pack: those of a registered class whose kernels are all trainable.

    Args:
        trunk: a built model of plain layers.
        policy: says whether embeddings are packed, and which layers are the stem, which is not.

    Returns:
        The `id` of each layer to pack, nested layers included.

    Raises:
        ValueError: a layer cannot be packed; the message says why.
    """
    trainable = {id(variable) for variable in trunk.trainable_variables}
    holders: dict[int, list[keras.Layer]] = {}
    for layer in all_layers(trunk):
        for variable in direct_variables(layer):
            holders.setdefault(id(variable), []).append(layer)
    found, in_stem = set(), {id(layer) for layer in stem_layers(trunk, policy.stem)}
    for layer in all_layers(trunk):
        if getattr(layer, "lora_enabled", False):  # its file would hold the merged kernel
            raise _no_plain_kernel(layer, "LoRA-enabled")
        if id(layer) in in_stem:
            continue
        base = next((cls for cls in type(layer).__mro__ if cls in PACKED_CLASSES), None)
        if base is None or not layer.built:
            continue
        if isinstance(layer, EMBEDDINGS) and policy.embeddings != "packed":
            continue
        if not layer.trainable_variables:
            continue
        _check_class(layer, base)
        kernels = {name: _kernel(layer, name) for name in PACKED_CLASSES[base].packed_names}
        kernels = {name: kernel for name, kernel in kernels.items() if kernel is not None}
        _check_kernels(layer, kernels, holders)
        free = [id(kernel) in trainable for kernel in kernels.values()]
        users = [user for kernel in kernels.values() for user in holders[id(kernel)]]
        others = [user for user in users if user is not layer]
        if not any(free):
            continue
        if all(free) and not others:
            found.add(id(layer))
            continue
        why = "one of its kernels is frozen"
        if others:
            why = f"layer '{others[0].name}' ({type(others[0]).__name__}) changes its kernel too"
        warnings.warn(
            f"Layer '{layer.name}' is not packed but shared after the first task: {why}.",
            stacklevel=4,
        )
    return found


def _kernel(layer: keras.Layer, name: str) -> Any:
    tied = name == "reverse_embeddings"  # a tied layer of Keras has none
    if hasattr(layer, name) or tied:
        return getattr(layer, name, None)
    raise ValueError(
        f"Cannot pack layer '{layer.name}': {type(layer).__name__} was registered with the weight "
        f"'{name}', and it has no such attribute. Call packnet_tf.register_packed with the names "
        "of the attributes that hold its weights."
    )


def _check_class(layer: keras.Layer, base: type[keras.Layer]) -> None:
    if type(layer) is not base:
        cls, names = type(layer), list(PACKED_CLASSES[base].packed_names)
        raise ValueError(
            f"Layer '{layer.name}' is a {cls.__name__}, a subclass of {base.__name__} that is not "
            f"registered for packing. If it reads its kernel as {base.__name__} does, call "
            f"packnet_tf.register_packed({cls.__name__}, variables={names}) first."
        )
    taken = sorted({"packed_weights", "plain", "task_view"} & set(vars(layer)))
    if taken:
        raise ValueError(
            f"Cannot pack layer '{layer.name}': it has an attribute '{taken[0]}', which packed "
            f"layers use for themselves. Rename it in {type(layer).__name__}, to '_{taken[0]}' "
            "for instance."
        )
    if getattr(layer, "quantization_mode", None):
        raise _no_plain_kernel(layer, "quantized")


def _no_plain_kernel(layer: keras.Layer, state: str) -> ValueError:
    return ValueError(
        f"Cannot pack layer '{layer.name}': it is {state}, so its kernel is not one plain "
        "float variable. Build the PackNet from the plain float model, and quantize or "
        "adapt the model that net.unpack(task) returns."
    )


def _check_kernels(
    layer: keras.Layer, kernels: dict[str, Any], holders: dict[int, list[keras.Layer]]
) -> None:
    for name, kernel in kernels.items():
        if id(kernel) not in holders:
            raise ValueError(
                f"Cannot pack layer '{layer.name}': its '{name}' is not a variable but a "
                f"{type(kernel).__name__}. Register the names of variables that the layer has "
                "made with add_weight."
            )


_class: type[keras.Layer]
for _class in (
    keras.layers.Dense,
    keras.layers.EinsumDense,  # the projections of MultiHeadAttention and GroupQueryAttention
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
):
    register_packed(_class)
for _class in (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D):
    register_packed(_class, variables=("depthwise_kernel", "pointwise_kernel"))
# The cell class of ConvLSTM layers has no public name. Creating such a layer to get it would
# initialise TensorFlow, after which devices and hosts can no longer be configured.
_ConvLSTMCell = vars(sys.modules[keras.layers.ConvLSTM2D.__base__.__module__])["ConvLSTMCell"]
# The layers LSTM, GRU and SimpleRNN hold a cell, and the cell holds the kernels.
for _class in (
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
    keras.layers.SimpleRNNCell,
    _ConvLSTMCell,
):
    register_packed(_class, variables=("kernel", "recurrent_kernel"))
register_packed(keras.layers.Embedding, variables=("embeddings",))
register_packed(keras.layers.ReversibleEmbedding, variables=("embeddings", "reverse_embeddings"))
del _class
