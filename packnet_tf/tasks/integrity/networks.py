"""Checks of trunks and heads."""

import pathlib
import tempfile
import warnings

import keras

from packnet_tf.backend.keras_internals import all_layers, has_graph
from packnet_tf.backend.types import Tensors
from packnet_tf.packing.cloning import copy_layer
from packnet_tf.packing.configs import TRUSTED, check_copy
from packnet_tf.packing.layers import Packed, plain_class
from packnet_tf.packing.policy import Policy


def check_trunk(trunk: object) -> None:
    """Refuses a trunk that cannot be packed.

    Args:
        trunk: the user's value.

    Raises:
        ValueError: the message says why, and what to do.
    """
    if any(isinstance(layer, Packed) for layer in _layers_of(trunk)):
        raise ValueError(
            "Cannot pack this trunk: it is packed already. Add tasks to the PackNet it belongs "
            "to, or pack the plain model that net.unpack(task) returns."
        )
    if not isinstance(trunk, keras.Model):
        raise ValueError(
            f"Cannot pack {trunk!r}: expected a Keras model. Write PackNet(keras.Sequential("
            "[keras.Input(shape), ...])) or pass a keras.applications model."
        )
    if not has_graph(trunk):
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is a subclassed model ({type(trunk).__name__}), "
            "whose graph only its own code knows. Build it as a Functional or Sequential model; a "
            "subclassed layer inside one is fine."
        )
    _check_layers(trunk)
    _check_graphs(trunk)
    if not trunk.built:
        raise ValueError(
            f"Cannot pack trunk '{trunk.name}': it is not built yet. Give it an input shape, "
            "keras.Sequential([keras.Input((96, 96, 3)), ...]), or call it once on data."
        )


def nothing_to_pack(trunk: keras.Model, policy: Policy) -> ValueError:
    """Creates the error for a trunk without a layer to pack.

    Args:
        trunk: a built model.
        policy: the policy of the pack.
    """
    tables = [x for x in all_layers(trunk) if isinstance(x, keras.layers.Embedding)]
    if policy.stem is not None:
        remedy = (
            f"The stem, all layers up to '{policy.stem}', is not packed; name an earlier layer."
        )
    elif tables and policy.embeddings != "packed":
        remedy = f"To pack its embedding '{tables[0].name}', write embeddings=\"packed\"."
    else:
        remedy = (
            "Register a layer of your own with packnet_tf.register_packed; if the trunk is frozen, "
            "set trunk.trainable = True."
        )
    return ValueError(
        f"Cannot pack trunk '{trunk.name}': it has no trainable layer that can be packed "
        f"(Dense or a convolution, say). {remedy}"
    )


def check_head(task: str, head: object) -> None:
    """Refuses a head that a task cannot have.

    Args:
        task: the task's name.
        head: the user's value.

    Raises:
        ValueError: the message says why, and what to do.
    """
    if not isinstance(head, keras.layers.Layer):
        raise ValueError(
            f"Cannot add task '{task}': its head must be a Keras layer or model, for instance "
            f"keras.layers.Dense(10); got {head!r}."
        )
    if isinstance(head, keras.Model) and not has_graph(head):
        raise ValueError(
            f"Cannot add task '{task}': its head is a subclassed model ({type(head).__name__}), "
            "which cannot be copied. Build it as a Functional or Sequential model, or as a layer."
        )
    _check_layers(head)
    for part in all_layers(head):
        _refuse_own_call(part, f"Cannot add task '{task}' with model '{part.name}' as its head")
    _check_assets(task, head)


def check_head_copy(
    task: str, head: keras.layers.Layer, own: keras.layers.Layer, features: Tensors
) -> None:
    """Refuses a built head of which the task's copy answers otherwise; layers of Keras are trusted.

    One that is not built has no answers yet, and building it would change the user's own. It warns
    of attributes of such a head that the copy lacks.

    Args:
        task: the task's name.
        head: the user's head.
        own: its copy in the task's model, with its values if it is built.
        features: the tensors that it takes.

    Raises:
        ValueError: the copy answers otherwise, because a layer's `get_config()` lacks something.
    """
    if head.built:
        what = f"Cannot add task '{task}' with its head"
        check_copy(what, head, all_layers(head), lambda: own, features)
    else:
        _warn_of_lost_attributes(task, head)


def _warn_of_lost_attributes(task: str, head: keras.layers.Layer) -> None:
    for part, copied in zip(all_layers(head), all_layers(copy_layer(head)), strict=False):
        if type(part).__module__.startswith(TRUSTED):
            continue
        lost = [
            name
            for name, value in vars(part).items()
            if not name.startswith("_") and isinstance(value, (bool, int, float, str))
            if vars(copied).get(name, value) != value
        ]
        if lost:
            warnings.warn(
                f"A copy of the head of task '{task}', made from its configuration, has other "
                f"values of {', '.join(lost[:3])} in '{part.name}' ({type(part).__name__}): "
                "get_config() must return all arguments of __init__.",
                stacklevel=4,
            )


def _check_assets(task: str, head: keras.layers.Layer) -> None:
    """Refuses a head that keeps more than weights and configuration, as an adapted lookup does.

    A pack has the configuration and the weights of heads, so this would be lost.
    """
    for part in all_layers(head):
        kept = _assets(part)
        if kept and kept != _assets(copy_layer(part)):
            kind = type(part).__name__
            raise ValueError(
                f"Cannot add task '{task}': layer '{part.name}' ({kind}) of its head keeps what "
                "its get_config() does not have, and the pack would lose it. Give it to __init__, "
                f"{kind}(vocabulary=lookup.get_vocabulary()) for an adapted lookup, or use it on "
                "the head's answers."
            )


def _assets(layer: keras.layers.Layer) -> dict[str, bytes]:
    """Returns the files that a layer keeps besides its weights, by name."""
    if not hasattr(layer, "save_assets"):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            layer.save_assets(folder)
        except Exception:  # it has none yet
            return {}
        files = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _check_layers(model: keras.layers.Layer) -> None:
    """Refuses or warns about layers with which a saved pack could not be read."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Lambda):
            _check_lambda(layer)
        cls = plain_class(layer)
        known = cls.__module__.partition(".")[0] in ("keras", "keras_hub", "packnet_tf")
        if not known and keras.saving.get_registered_name(cls) == cls.__name__:
            warnings.warn(
                f"Layer '{layer.name}' is a {cls.__name__}, which is not registered with Keras: "
                "a pack with it can be saved but not loaded. Decorate the class with "
                "@keras.saving.register_keras_serializable().",
                stacklevel=4,
            )


def _check_graphs(trunk: keras.Model) -> None:
    """Refuses models that override `call`; warns about layers that are part of two graphs."""
    graphs: dict[int, str] = {}
    for part in all_layers(trunk):
        if not (isinstance(part, keras.Model) and has_graph(part)):
            continue
        _refuse_own_call(part, f"Cannot pack model '{part.name}'")
        for layer in part.layers:
            if layer.weights and graphs.setdefault(id(layer), part.name) != part.name:
                warnings.warn(
                    f"Layer '{layer.name}' is part of two models, '{graphs[id(layer)]}' and "
                    f"'{part.name}': Keras saves such a trunk but cannot load it, and the same "
                    "holds for a pack with it. Export its tasks, or build the trunk as one model.",
                    stacklevel=4,
                )


def _refuse_own_call(part: keras.layers.Layer, sentence: str) -> None:
    if not (isinstance(part, keras.Model) and has_graph(part)):
        return
    author = next(cls for cls in type(part).__mro__ if "call" in vars(cls))
    if not author.__module__.startswith("keras."):
        raise ValueError(
            f"{sentence}: its class {author.__name__} has a call() of its own, which a copy of its "
            "graph would not run. Put what it does into the graph, or into a layer."
        )


def _check_lambda(layer: keras.layers.Lambda) -> None:
    try:
        type(layer).from_config(layer.get_config())
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Cannot pack layer '{layer.name}': it is a Lambda around a Python function, which no "
            "file can hold safely. Call the function in the graph, x = preprocess(inputs), if it "
            "consists of keras.ops; or write a layer class of your own, registered with "
            "keras.saving.register_keras_serializable."
        ) from error


def _layers_of(trunk: object) -> list[keras.layers.Layer]:
    return all_layers(trunk) if isinstance(trunk, keras.layers.Layer) else []
