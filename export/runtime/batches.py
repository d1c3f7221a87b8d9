"""Inputs that users give, in whatever form Keras takes them, as batches of arrays."""

from collections.abc import Iterable, Iterator, Mapping

import keras
import numpy as np

from packnet_tf.backend.datasets import check_ends
from packnet_tf.backend.types import AnyData, Tensors

BATCH = 32


def as_inputs(model: keras.Model, given: Tensors) -> list[np.ndarray]:
    """Inputs as Keras would take them: one array per input of the model, of the input's dtype.

    Args:
        model: a functional model.
        given: an array or tensor, a list of one per input, or a dict by the names of the inputs.

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
    arrays = [_fitted(array, entry) for array, entry in zip(arrays, entries, strict=True)]
    if len({len(array) for array in arrays}) > 1:
        counts = ", ".join(str(len(array)) for array in arrays)
        raise ValueError(f"The inputs have {counts} examples. Give as many for each.")
    return arrays


def input_batches(
    model: keras.Model, given: AnyData, fixed: int | None, size: int = BATCH
) -> Iterator[tuple[list[np.ndarray], int]]:
    """Cuts inputs into batches.

    Args:
        model: a functional model.
        given: what `as_inputs` takes; or an iterable of such, with labels or without, such as a
            dataset of batches.
        fixed: a batch size that every batch must have, or None.
        size: the batch size otherwise, at most.

    Yields:
        One array per input, and how many examples count: with a fixed batch size the last one is
        repeated to fill the batch.

    Raises:
        ValueError: they do not fit the model.
    """
    whole = _is_one(model, given) or isinstance(given, tuple)  # a tuple is inputs and labels
    for part in [given] if whole else check_ends(given, "The inputs given"):
        part = part[0] if isinstance(part, tuple) and not _is_one(model, part) else part
        yield from _cut(as_inputs(model, part), fixed, size)


def labelled_batches(
    model: keras.Model, given: AnyData, fixed: int | None
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Cuts inputs with labels into batches.

    Args:
        model: a functional model.
        given: a pair (inputs, labels (n,) or (n, 1)), or an iterable of such pairs.
        fixed: as for `input_batches`.

    Yields:
        One array per input, and the labels of those examples that count.

    Raises:
        ValueError: they are no such pairs.
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
        for batch, count in _cut(inputs, fixed, BATCH):
            yield batch, labels[at : at + count]
            at += count


def _fitted(array: np.ndarray, entry: keras.KerasTensor) -> np.ndarray:
    """Examples in the shape of an input; as Keras does, an axis of 1 at the end comes or goes."""
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
    """Whether something is inputs, and not batches of them, or inputs with labels."""
    if isinstance(given, Mapping) or _is_array(given):
        return True
    several = isinstance(given, (list, tuple)) and all(map(_is_array, given))
    return several and len(given) == len(keras.tree.flatten(model.inputs))


def _is_array(given: object) -> bool:
    return hasattr(given, "shape") and hasattr(given, "dtype")


def _cut(
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
    """Refuses data that are not by the names of tasks.

    Args:
        what: the argument's name.
        data: the argument.
        tasks: the pack's tasks.
        example: what to write for a task.

    Raises:
        ValueError: they are no dict, or name something else.
    """
    known = list(tasks)
    if data is None or (isinstance(data, Mapping) and set(data) <= set(known)):
        return
    if isinstance(data, Mapping):
        found = f"has {', '.join(map(repr, sorted(set(data) - set(known))))}, which is no task"
    else:
        found = f"is {type(data).__name__}"
    raise ValueError(
        f"{what} is a dict by task name, and it {found}. The tasks are "
        f"{', '.join(map(repr, known))}; write {what}={{{known[0]!r}: {example}}}."
    )
