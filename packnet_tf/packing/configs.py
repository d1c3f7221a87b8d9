"""Layer configurations from which layers can be recreated, and whether copies answer alike."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.text import quoted

TRUSTED = ("keras.", "keras_hub.", "packnet_tf.")  # modules whose layers copy well
ROUNDING = 1e-3  # relative difference of a copy's answers that is no sign of a lost value
UNKNOWN_SIZE = 32  # pixels or steps of a random input where a layer takes any number


def config_of(layer: keras.Operation) -> dict:
    """Returns a layer's `get_config()` without arguments that its `__init__` does not take.

    Some third-party layers put derived values into their configuration, and `from_config` then
    fails.

    Raises:
        TypeError: the layer cannot be recreated from its configuration.
    """
    try:
        config = layer.get_config()
    except Exception as error:  # by the user's code, a third party's, or Keras's while_loop
        raise impossible(layer, error) from error
    if type(layer).__module__.startswith(("keras.", "packnet_tf.")):
        return config
    try:
        type(layer).from_config(changed(config, dict))  # a copy: wrappers pop their inner layer
    except Exception as error:
        named = {
            name
            for cls in type(layer).__mro__
            for name in inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of each base
        }
        kept = {name: value for name, value in config.items() if name in named}
        try:
            type(layer).from_config(changed(kept, dict))
        except Exception:
            raise impossible(layer, error) from error
        return kept
    return config


def changed(config: Any, change: Callable[[dict], dict]) -> Any:
    """Applies `change` to every dict of a configuration, inner dicts first.

    A layer in it, which Keras would write as its configuration, becomes that: a copy of a layer has
    copies of the layers within.
    """
    if isinstance(config, keras.layers.Layer):
        config = keras.saving.serialize_keras_object(config)
    if isinstance(config, dict):
        return change({key: changed(value, change) for key, value in config.items()})
    if isinstance(config, list):
        return [changed(value, change) for value in config]
    if type(config) is tuple:
        return tuple(changed(value, change) for value in config)
    return config


def impossible(layer: keras.Operation, error: Exception) -> TypeError:
    """Creates the error for a layer that cannot be recreated from its configuration."""
    remedy = (
        "Its get_config() must return the arguments of its __init__. If it only prepares or "
        "augments inputs, leave it out of the trunk and apply it to the data, dataset.map(...)"
    )
    if not isinstance(layer, keras.layers.Layer):  # keras.ops of a function, such as while_loop
        remedy = "Write it in the call() of a layer of your own"
    return TypeError(
        f"Layer '{layer.name}' ({type(layer).__name__}) cannot be made from its get_config(), so "
        f"it cannot be copied for another task. {remedy}: {quoted(error)}"
    )


def repair(config: dict, model: keras.Model) -> dict:
    """Returns a functional model's configuration with `config_of` applied to every layer."""
    layers = []
    for entry, layer in zip(config["layers"], model.operations, strict=True):
        if isinstance(layer, keras.Model):
            inner = entry["config"]
            fixed = repair(inner, layer) if "input_layers" in inner else inner
        else:
            fixed = config_of(layer) if isinstance(layer, keras.layers.Layer) else entry["config"]
        layers.append({**entry, "config": fixed})
    return {**config, "layers": layers}


def check_copy(
    what: str,
    layer: keras.Layer,
    parts: Iterable[keras.Layer],
    copy: Callable[[], keras.Layer],
    example: Any,
) -> None:
    """Refuses a copy that answers otherwise than its layer; layers of Keras itself are trusted.

    Args:
        what: what cannot be done then, for the message.
        layer, copy, example: as for `answers_apart`.
        parts: the layers within.

    Raises:
        ValueError: it does, because a layer's `get_config()` lacks something.
    """
    own = [part for part in parts if not type(part).__module__.startswith(TRUSTED)]
    apart = answers_apart(layer, copy, example) if own else 0.0
    if apart > ROUNDING:
        names = ", ".join(f"'{part.name}' ({type(part).__name__})" for part in own[:3])
        raise ValueError(
            f"{what}: a copy of it, made from the configurations of its layers, answers otherwise "
            f"(by {apart:.1%} on random inputs). Not of Keras are {names}: get_config() must "
            "return all arguments of __init__, and values must be weights made with add_weight."
        )


def answers_apart(layer: keras.Layer, copy: Callable[[], keras.Layer], example: Any) -> float:
    """Computes how far the answers of a layer and of its copy to random inputs are apart.

    Args:
        layer: a layer or model.
        copy: creates its copy.
        example: the tensors that it takes.

    Returns:
        The largest difference relative to the largest answer; 0 if the layer takes no such inputs,
        or never answers alike.
    """
    inputs = keras.tree.map_structure(_some_input, example)
    try:
        expected, again = _answers(layer, inputs), _answers(layer, inputs)
    except Exception:  # its own data will tell
        return 0.0
    found, apart = _answers(copy(), inputs), 0.0
    for value, other, copied in zip(expected, again, found, strict=True):
        size = np.abs(value).max(initial=0.0)
        if np.isfinite(size) and np.array_equal(value, other) and size:
            difference = float(np.abs(value - copied).max() / size)
            apart = max(apart, difference if np.isfinite(difference) else np.inf)
    return apart


def _some_input(tensor: keras.KerasTensor) -> np.ndarray:
    """Returns two random examples: floats of 0 to 1, or 0 and 1, which any embedding takes."""
    shape = [2, *(size or UNKNOWN_SIZE for size in tensor.shape[1:])]
    values = np.random.default_rng(0).random(shape)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return values.astype(str)
    return (values if "float" in dtype else values.round()).astype(dtype)


def _answers(layer: keras.Layer, inputs: Any) -> list[np.ndarray]:
    with keras.StatelessScope():  # nothing that the call assigns stays
        outputs = keras.tree.flatten(layer(inputs, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(x), np.float64) for x in outputs]
