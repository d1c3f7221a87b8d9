"""Converts inputs in any form that Keras takes to batches of arrays."""

from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np

from packnet_tf.backend.datasets import check_ends
from packnet_tf.backend.text import listed
from packnet_tf.backend.types import AnyData, Tensors

BATCH = 32


def as_inputs(model: keras.Model, given: Tensors) -> list[np.ndarray]:
    """Returns one array per input of the model, in the input's dtype.

    Args:
        model: a Functional model.
        given: an array or tensor, a list of one per input, or a dict by input name.

    Raises:
        ValueError: their number, names, shapes or lengths do not fit the model.
    """
    entries = keras.tree.flatten(model.inputs)
    names = [entry.name for entry in entries]
    if isinstance(given, Mapping) and not isinstance(model.input, Mapping):
        if set(given) != set(names):
            raise ValueError(
                f"The inputs given are {', '.join(map(repr, given))}, and the model's are "
                f"{', '.join(map(repr, names))}. Give an array for each, by these names."
            )
        given = [given[name] for name in names]
    arrays = keras.tree.flatten(given)
    if len(arrays) != len(entries):
        raise ValueError(
            f"{len(arrays)} arrays are given for a model with {len(entries)} inputs "
            f"({', '.join(names)}). Give one array per input, the examples along its first axis."
        )
    arrays = [
        np.asarray(keras.ops.convert_to_numpy(array), keras.backend.standardize_dtype(entry.dtype))
        for array, entry in zip(arrays, entries, strict=True)
    ]
    arrays = [_match_shape(array, entry) for array, entry in zip(arrays, entries, strict=True)]
    if len({len(array) for array in arrays}) > 1:
        counts = ", ".join(str(len(array)) for array in arrays)
        raise ValueError(f"The inputs have {counts} examples. Give as many for each.")
    return arrays


def input_batches(
    model: keras.Model, given: AnyData, fixed: int | None, size: int = BATCH
) -> Iterator[tuple[list[np.ndarray], int]]:
    """Splits inputs into batches.

    Args:
        model: a Functional model.
        given: inputs as for `as_inputs`, or an iterable of them, with or without labels, such as a
            dataset of batches.
        fixed: a batch size that every batch must have, or None.
        size: the largest batch size, if none is fixed.

    Yields:
        One array per input, and the number of examples that count: with a fixed batch size, the
        last example is repeated to fill the batch.

    Raises:
        ValueError: they do not fit the model.
    """
    whole = _is_one(model, given) or isinstance(given, tuple)  # a tuple is inputs and labels
    for part in [given] if whole else check_ends(given, "The inputs given"):
        part = part[0] if isinstance(part, tuple) and not _is_one(model, part) else part
        yield from _split(as_inputs(model, part), fixed, size)


def labelled_batches(
    model: keras.Model, given: AnyData, fixed: int | None
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Splits inputs with labels into batches.

    Args:
        model: a Functional model.
        given: a pair (inputs, labels (n,) or (n, 1)), or an iterable of such pairs.
        fixed: as for `input_batches`.

    Yields:
        One array per input, and the labels of the examples that count.

    Raises:
        ValueError: `given` is something else, or does not fit the model.
    """
    is_pair = isinstance(given, tuple) and len(given) in (2, 3) and not isinstance(given[0], tuple)
    for pair in [given] if is_pair else check_ends(given, "The inputs and labels to evaluate on"):
        if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3):
            raise ValueError(
                f"evaluate is pairs (inputs, labels), or one; got {type(pair).__name__}. Write "
                "evaluate={'birds': (images, labels)}, or give a dataset of batches."
            )
        inputs, labels = as_inputs(model, pair[0]), keras.ops.convert_to_numpy(pair[1])
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != inputs[0].shape[:1]:
            raise ValueError(
                f"{len(inputs[0])} examples have labels of shape {labels.shape}; expected one "
                "whole number each, the place of the class. Of one-hot labels, give "
                "labels.argmax(-1)."
            )
        at = 0
        for batch, count in _split(inputs, fixed, BATCH):
            yield batch, labels[at : at + count]
            at += count


def _match_shape(array: np.ndarray, entry: keras.KerasTensor) -> np.ndarray:
    """Fits examples to the shape of an input; as in Keras, a last axis of 1 is added or removed."""
    rank = len(entry.shape)
    if array.ndim == rank - 1 and entry.shape[-1] == 1:
        array = array[..., None]
    elif array.ndim == rank + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    given, wanted = array.shape[1:], tuple(entry.shape[1:])
    fits = array.ndim and len(given) == len(wanted)
    if fits and all(size in (None, other) for size, other in zip(wanted, given, strict=True)):
        return array
    raise ValueError(
        f"Inputs of shape {array.shape} are given for '{entry.name}', and the model takes "
        f"{('batch', *wanted)}. Give them as the task was trained on them, resized and scaled, "
        "whatever the file does by itself."
    )


def _is_one(model: keras.Model, given: AnyData) -> bool:
    """Whether `given` is one set of inputs: no iterable of batches, no inputs with labels."""
    if isinstance(given, Mapping) or _is_array(given):
        return True
    several = isinstance(given, (list, tuple)) and all(map(_is_array, given))
    return several and len(given) == len(keras.tree.flatten(model.inputs))


def _is_array(given: object) -> bool:
    return hasattr(given, "shape") and hasattr(given, "dtype")


def _split(
    arrays: list[np.ndarray], fixed: int | None, size: int
) -> Iterator[tuple[list[np.ndarray], int]]:
    size = fixed or size
    for at in range(0, len(arrays[0]), size):
        batch = [array[at : at + size] for array in arrays]
        count = len(batch[0])
        if fixed and count < fixed:
            batch = [np.concatenate([a, a[-1:].repeat(fixed - count, axis=0)]) for a in batch]
        yield batch, count


def check_by_task(what: str, data: AnyData, tasks: Iterable[str], example: str) -> None:
    """Checks that an argument is None or a dict by task name.

    Args:
        what: the argument's name.
        data: the argument.
        tasks: the pack's tasks.
        example: an example of a value, for the message.

    Raises:
        ValueError: it is not a dict, or a key is not a task.
    """
    known = list(tasks)
    if data is None or (isinstance(data, Mapping) and set(data) <= set(known)):
        return
    if isinstance(data, Mapping):
        found = f"has {listed(sorted(set(data) - set(known)))}, which is no task"
    else:
        found = f"is {type(data).__name__}"
    raise ValueError(
        f"{what} is a dict by task name, and it {found}. The tasks are "
        f"{listed(known)}; write {what}={{{known[0]!r}: {example}}}."
    )
