"""Copies of a trunk: the packed store, views of it, and plain models.

`keras.models.clone_model` recreates every layer from its configuration, as a plain layer. Then the
values are copied layer by layer, and the layers to pack are packed.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import keras

from packnet_tf.backend.keras_internals import (
    all_layers,
    keep_remat,
    limited,
    operation_of,
    set_input_dtype,
)
from packnet_tf.packing.configs import changed, check_copy, config_of, impossible
from packnet_tf.packing.initializers import restore_initializers, with_skipped_init, with_zeros_init
from packnet_tf.packing.layers import (
    Packed,
    TaskView,
    guard,
    own_variables,
    pack_layer,
    plain_class,
)
from packnet_tf.packing.policy import Policy
from packnet_tf.packing.recurrent import view_once_per_sequence
from packnet_tf.packing.registry import packable_layers
from packnet_tf.packing.trunk import PackedTrunk
from packnet_tf.packing.weight import PackedWeight, copy_value

# Pairs of a layer and its copy.
Pairs = Sequence[tuple[keras.Layer, keras.Layer]]
ModelOf = TypeVar("ModelOf", bound=keras.Model)
FLOATS = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")


def pack_trunk(trunk: keras.Model, policy: Policy) -> PackedTrunk:
    """Copies a trunk and packs every packable layer; all weights are free and keep their values.

    Args:
        trunk: a functional or sequential model.
        policy: says whether embeddings are packed, and which layers are the stem, which is not.

    Raises:
        ValueError: the copy answers otherwise, because a layer's `get_config()` lacks something.
    """
    packable, view = packable_layers(trunk, policy), TaskView()
    clone, pairs = _clone(trunk)
    for source, target in pairs:
        _copy_own(own_variables(source), own_variables(target))
        if id(source) in packable:
            pack_layer(target, view)
    _finish(pairs)
    store = _rebuild_as(PackedTrunk, clone)
    parts = all_layers(trunk, include_self=False)
    check_copy(
        f"Cannot pack trunk '{trunk.name}'", trunk, parts,
        lambda: view_trunk(store, (0,), frozen=True), store.input,
    )  # fmt: skip
    return store


def view_trunk(store: PackedTrunk, sees: Sequence[int], frozen: bool) -> PackedTrunk:
    """Creates one task's view of a packed trunk; it shares the packed variables.

    Args:
        store: the packed trunk.
        sees: numbers of the tasks whose weights are visible; the last is the task's own.
        frozen: whether the view cannot be trained.
    """
    view, pairs = _clone(store, with_zeros_init)
    # A model of a task replaces `is_open`; a preview keeps this one.
    view.task_view = TaskView(tuple(sees), frozen, shared=True, is_open=lambda: not frozen)
    for source, target in pairs:
        if isinstance(source, Packed):
            pack_layer(target, view.task_view, source)
        _copy_own(own_variables(source), own_variables(target))
    _finish(pairs)
    view_once_per_sequence(all_layers(view))
    for layer in all_layers(view, include_self=False):
        if any(isinstance(part, Packed) for part in all_layers(layer, include_self=False)):
            guard(layer)
    return view


def plain_trunk(store: PackedTrunk, view: PackedTrunk) -> keras.Model:
    """Copies a view of the store as plain Keras layers, with the masked kernels baked in."""
    clone, pairs = _clone(store)
    views = {id(source): layer for source, layer in _layer_pairs(store, view)}
    for source, target in pairs:
        layer = views[id(source)]
        kernels = []
        for name in layer.packed_weights if isinstance(layer, Packed) else ():
            kernels.append(getattr(target, name))
            kernels[-1].assign(getattr(layer, name))
        others = [v for v in own_variables(target) if all(v is not kernel for kernel in kernels)]
        _copy_own(own_variables(layer), others)
    _finish(pairs)
    return _rebuild_as(keras.Model, clone)


def packed_kernels(
    store: PackedTrunk, plain: keras.Model
) -> list[tuple[keras.Variable, PackedWeight]]:
    """Pairs the kernels of a plain copy of the store with the packed weights of the store."""
    layers = (all_layers(trunk, include_self=False) for trunk in (store, plain))
    return [
        (getattr(target, name), weight)
        for source, target in zip(*layers, strict=True)
        for name, weight in (source.packed_weights.items() if isinstance(source, Packed) else ())
    ]


def full_precision(model: keras.Model) -> keras.Model:
    """Copies a plain model with float32 as the dtype of its floating-point layers."""

    def single(policy: keras.DTypePolicy) -> str:
        return "float32" if "float" in policy.compute_dtype else policy.name

    return _in_policies(model, single)


def computing_in(model: keras.Model, policy: str) -> keras.Model:
    """Copies a plain model with another dtype policy; quantized layers keep theirs."""
    return _in_policies(model, lambda old: policy if old.name in FLOATS else old)


def _in_policies(
    model: keras.Model, new: Callable[[keras.DTypePolicy], str | keras.DTypePolicy]
) -> keras.Model:
    def change(config: dict) -> dict:
        if isinstance(config.get("dtype"), dict):
            policy = keras.dtype_policies.deserialize(config["dtype"])
            config = {**config, "dtype": new(policy)}
        return config

    clone, pairs = _clone(model, change)
    # Keras makes the input of a nested Sequential in the precision of its first layer, and would
    # still round to it.
    outer = {id(tensor) for tensor in keras.tree.flatten(clone.inputs)}
    for layer in _input_layers(clone):
        if layer.dtype in ("float16", "bfloat16") and id(layer.output) not in outer:
            policy = keras.dtype_policies.get(new(keras.DTypePolicy(layer.dtype)))
            set_input_dtype(layer, policy.compute_dtype)
    _copy_all(pairs)
    return clone


def copy_layer(layer: keras.Layer) -> keras.Layer:
    """Copies a layer or model, unconnected to any graph; a built model keeps its values."""
    if not isinstance(layer, keras.Model):
        return type(layer).from_config(changed(layer.get_config(), dict))
    copy, pairs = _clone(layer)
    if copy.built:
        _copy_all(pairs)
    return copy


def attach(
    trunk: keras.Model,
    head: keras.Layer,
    name: str,
    model_class: type[ModelOf] = keras.Model,
) -> tuple[ModelOf, keras.Layer]:
    """Builds the model inputs -> trunk -> head from a copy of the head.

    Args:
        trunk: a functional model.
        head: a layer or model; it is copied, with its values if it is built.
        name: the model's name.
        model_class: `keras.Model` or a subclass with the same functional constructor.

    Returns:
        The model, and the copy of the head in it.
    """

    inputs = keras.tree.map_structure(
        lambda x: _same_input(x, f"{x.name}_input" if x.name == trunk.name else x.name), trunk.input
    )
    own = copy_layer(head)
    if own.name in {trunk.name, *(tensor.name for tensor in keras.tree.flatten(inputs))}:
        own.name = f"{name}_head"
    outputs = limited(lambda: own(trunk(inputs))) if _of_keras(own) else own(trunk(inputs))
    model = model_class(inputs, outputs, name=name)
    if head.built:
        _copy_all(_layer_pairs(head, own))
    return model, own


def _of_keras(layer: keras.Layer) -> bool:
    return all(type(part).__module__.startswith("keras.") for part in all_layers(layer))


def finalize(layer: keras.Layer) -> None:
    """Updates cached copies of weights in a layer and its nested layers, see `_recompute`."""
    for part in all_layers(layer):
        _recompute(part)


def _clone(
    model: keras.Model, change: Callable[[dict], dict] = with_skipped_init
) -> tuple[keras.Model, Pairs]:
    """Clones a model.

    Args:
        model: a functional or sequential model.
        change: function applied to the configurations of all layers, nested ones included. By
            default it skips initializers, because the clone's values will be overwritten.

    Returns:
        The clone, and pairs of each layer and its copy, nested layers included.
    """
    graph_pairs: list[tuple[keras.Operation, keras.Operation]] = []

    def copy(layer: keras.Operation) -> keras.Operation:
        config = config_of(layer)
        try:
            made = type(layer).from_config(changed(config, change))
        except (TypeError, ValueError) as error:  # some Keras layers fail too
            raise impossible(layer, error) from error
        graph_pairs.append((layer, made))
        return made

    inputs = None  # clone_model's own inputs are neither optional nor sparse
    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.map_structure(lambda x: _same_input(x, x.name), model.input)
    elif model.built and model.inputs[0].sparse:
        inputs = _same_input(model.inputs[0], model.inputs[0].name)
    with _uncompiled(model):
        clone = keras.models.clone_model(
            model, input_tensors=inputs, clone_function=copy, recursive=True
        )
    pairs = [
        pair
        for source, target in graph_pairs
        # Operations (ops.add, slices) have no state.
        if isinstance(source, keras.layers.Layer) and isinstance(target, keras.layers.Layer)
        for pair in _layer_pairs(source, target)
    ]
    restore_initializers(target for _, target in pairs)
    for source, target in pairs:
        keep_remat(source, target)
    _check_ties(pairs)
    for source, target in zip(_input_layers(model), _input_layers(clone), strict=True):
        target.optional = source.optional  # nested models have inputs too
    return clone, pairs


def _same_input(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Creates an input with the same specification as another one."""
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        optional=getattr(operation_of(tensor), "optional", False),
        name=name,
    )


def _input_layers(model: keras.Model) -> list[keras.layers.InputLayer]:
    return [x for x in all_layers(model) if isinstance(x, keras.layers.InputLayer)]


def _check_ties(pairs: Pairs) -> None:
    """Refuses a layer that two other layers hold, since their copies would not share it."""
    copies: dict[int, keras.layers.Layer] = {}
    for source, target in pairs:
        if source is target:
            raise ValueError(
                f"Cannot copy layer '{source.name}': the from_config() of a layer that contains it "
                "returns the same layer, not a copy. Let it make a new one from its configuration."
            )
        if source.weights and copies.setdefault(id(source), target) is not target:
            raise ValueError(
                f"Cannot copy layer '{source.name}': two layers contain it, and their copies would "
                "not share it. Call it in the graph instead, or merge the two layers into one."
            )


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    """Marks models as not compiled, so that clones copy neither the optimizer nor its state."""
    compiled = [
        part for part in all_layers(model) if isinstance(part, keras.Model) and part.compiled
    ]
    for part in compiled:
        part.compiled = False
    try:
        yield
    finally:
        for part in compiled:
            part.compiled = True


def _layer_pairs(source: keras.Layer, target: keras.Layer) -> Pairs:
    """Pairs the layers of two copies of the same structure."""
    sources, targets = all_layers(source), all_layers(target)
    if list(map(plain_class, sources)) != list(map(plain_class, targets)):
        raise ValueError(
            f"Layer '{source.name}' ({type(source).__name__}) cannot be copied: recreated from "
            "its get_config(), it has other layers. Its get_config() must return everything that "
            "its __init__ and build() need to create the same layers."
        )
    return list(zip(sources, targets, strict=True))


def _copy_own(sources: list[keras.Variable], targets: list[keras.Variable]) -> None:
    for source, target in zip(sources, targets, strict=True):
        copy_value(source, target)
        if target.trainable != source.trainable:  # the user froze this weight alone
            target.trainable = source.trainable


def _copy_all(pairs: Pairs) -> None:
    for source, target in pairs:
        _copy_own(own_variables(source), own_variables(target))
    _finish(pairs)


def _finish(pairs: Pairs) -> None:
    for source, target in pairs:
        if source.trainable != target.trainable:
            target.trainable = source.trainable
        if hasattr(source, "save_assets"):  # lookup tables are not weights
            with tempfile.TemporaryDirectory() as folder:
                source.save_assets(folder)
                target.load_assets(folder)
        _recompute(target)


def _recompute(layer: keras.Layer) -> None:
    """Makes a layer that caches copies of its weights (Normalization) update them."""
    # Discretization would compute its boundaries from data, which a copy has not seen.
    if hasattr(layer, "finalize_state") and not isinstance(layer, keras.layers.Discretization):
        layer.finalize_state()


def _rebuild_as(model_class: type[ModelOf], model: keras.Model) -> ModelOf:
    """Rebuilds a model as another class; a Sequential model becomes a functional one."""
    if isinstance(model, keras.Sequential):
        outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
        return model_class(model.inputs[0], outputs, name=model.name)
    return model_class(model.input, model.output, name=model.name)
