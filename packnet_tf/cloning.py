"""Copies of a trunk's graph: packed, as the view of a task, and plain again.

All three are Keras's own `clone_model` with a function that says what each layer becomes.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator

import keras
from keras import ops

from packnet_tf.layers import Packed, packed_class, plain_class


def _clone(model, copy: Callable):
    """Clones a model; returns the clone and the pairs (layer, its copy)."""
    pairs = []

    def copy_and_note(layer):
        made = copy(layer)
        pairs.append((layer, made))
        return made

    with _uncompiled(model):
        clone = keras.models.clone_model(model, clone_function=copy_and_note, recursive=True)
    return clone, pairs


@contextlib.contextmanager
def _uncompiled(model) -> Iterator[None]:
    """Within it a model counts as not compiled: a clone of it gets no optimizer, nor its state."""
    compiled = [
        part for part in model._flatten_layers() if isinstance(part, keras.Model) and part.compiled
    ]
    for part in compiled:
        part.compiled = False
    try:
        yield
    finally:
        for part in compiled:
            part.compiled = True


def _same(layer):
    return type(layer).from_config(layer.get_config())


def _copy_state(source, target) -> None:
    if not isinstance(source, keras.layers.Layer):
        return  # operations of the graph (ops.add, slices) are cloned too but have no state
    if source.weights:
        target.set_weights([ops.convert_to_numpy(weight) for weight in source.weights])
        finalize(target)
    if hasattr(source, "save_assets"):  # lookup tables are no weights
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def finalize(layer) -> None:
    """Tells layers that compute with copies of their weights (Normalization) to copy again."""
    for part in layer._flatten_layers():
        if hasattr(part, "finalize_state"):
            part.finalize_state()


def _kernels_and_others(plain, names: Iterable[str]):
    """The weights of a plain layer that are packed, by their names, and the rest in order."""
    kernels = [getattr(plain, name) for name in names]
    return kernels, [w for w in plain.weights if not any(w is kernel for kernel in kernels)]


def pack_trunk(trunk):
    """Copies a trunk with every packable layer packed, all weights free, values kept."""

    def copy(layer):
        # A layer that its owner froze has nothing to claim: it stays as it is for all tasks.
        cls = packed_class(layer) if getattr(layer, "trainable", False) else None
        return cls.from_config(layer.get_config()) if cls else _same(layer)

    clone, pairs = _clone(trunk, copy)
    for plain, packed in pairs:
        if not isinstance(packed, Packed):
            _copy_state(plain, packed)
            continue
        kernels, others = _kernels_and_others(plain, packed.packed)
        for kernel, weight in zip(kernels, packed.packed.values(), strict=True):
            weight.start(ops.convert_to_numpy(kernel))
        for value, variable in zip(others, packed.own_variables, strict=True):
            variable.assign(value)
    return clone


def view_trunk(trunk, task: int, frozen: bool):
    """Copies a packed trunk as the view of one task, on the same packed variables."""

    def copy(layer):
        if not isinstance(layer, Packed):
            return _same(layer)
        view = type(layer).from_config({**layer.get_config(), "task": task, "frozen": frozen})
        view.share(layer.packed)
        return view

    clone, pairs = _clone(trunk, copy)
    for source, target in pairs:
        if isinstance(source, Packed):
            for value, variable in zip(source.own_variables, target.own_variables, strict=True):
                variable.assign(value)
        else:
            _copy_state(source, target)
    return clone


def plain_trunk(view):
    """Copies the view of a task as plain Keras layers with its masked values baked in."""

    def copy(layer):
        if not isinstance(layer, Packed):
            return _same(layer)
        config = layer.get_config()
        del config["task"], config["frozen"]
        return plain_class(layer).from_config(config)

    clone, pairs = _clone(view, copy)
    for source, target in pairs:
        if not isinstance(source, Packed):
            _copy_state(source, target)
            continue
        kernels, others = _kernels_and_others(target, source.packed)
        for kernel, weight in zip(kernels, source.packed.values(), strict=True):
            kernel.assign(weight.view(source.task))
        for value, variable in zip(source.own_variables, others, strict=True):
            variable.assign(value)
    return clone


def full_precision(model):
    """A copy of a plain model that computes in the dtype of its weights.

    A mixed policy (`mixed_float16`) suits training; the weights it trains are float32.
    """

    def copy(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Layer) and layer.compute_dtype != layer.variable_dtype:
            config["dtype"] = layer.variable_dtype
        return type(layer).from_config(config)

    clone, pairs = _clone(model, copy)
    for source, target in pairs:
        _copy_state(source, target)
    return clone


def copy_layer(layer):
    """An unattached copy of a layer or model, values kept where it has been built."""
    if not isinstance(layer, keras.Model):
        return _same(layer)
    copy, pairs = _clone(layer, _same)
    if copy.built:
        for source, target in pairs:
            _copy_state(source, target)
    return copy


def attach(trunk, head, name: str, model_class: type = keras.Model):
    """Builds the model inputs -> trunk -> head; returns it with the head's copy in it.

    Args:
        trunk: a functional or sequential model.
        head: a layer or model; a copy of it is used, with its values where it has been built.
        name: name of the model.
        model_class: `keras.Model` or a subclass with the constructor of a functional model.
    """
    # A Sequential model that has not been called has inputs, but no input.
    inputs = trunk.inputs[0] if isinstance(trunk, keras.Sequential) else trunk.input
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name), inputs
    )
    own = copy_layer(head)
    if own.name in {trunk.name, *(tensor.name for tensor in keras.tree.flatten(inputs))}:
        own.name = f"{name}_head"
    model = model_class(inputs, own(trunk(inputs)), name=name)
    if head.built:
        _copy_state(head, own)
    return model, own
