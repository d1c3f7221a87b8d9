"""Weights of examples by their class, as in `fit(class_weight=...)`."""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

ClassWeight: TypeAlias = Mapping[int, float] | str | None
BALANCED = "balanced"
SEVERAL = (
    "class_weight is for one class per example, and these labels have several classes or none: "
    "rows that do not add up to 1. Leave it out, and give the batches weights, "
    "(x, y, sample_weight)."
)


def check_class_weight(given: Any, count: int | None = None) -> None:
    """Refuses class weights that are neither None, "balanced", nor a dict from class to weight.

    Args:
        given: the weights.
        count: number of classes, if it is known.

    Raises:
        ValueError: they cannot be used.
    """
    usable = given is None or (isinstance(given, str) and given == BALANCED)
    if isinstance(given, Mapping):
        usable = bool(given) and all(_is_class(k) and _is_weight(v) for k, v in given.items())
    if not usable:
        raise ValueError(
            "class_weight is a dict from the number of a class, counted from 0, to its weight, a "
            f'number from 0, or "balanced"; got {given!r}. Write '
            "class_weight={0: 1.0, 1: 2.5}; a class that it leaves out counts 1."
        )
    if isinstance(given, Mapping) and count is not None and max(given) >= count:
        raise ValueError(
            f"class_weight has a weight for class {max(given)}, and the {count} classes are 0 to "
            f"{count - 1}. Count them from 0."
        )


def weights_by_class(given: ClassWeight, labels: Iterable[Any]) -> Mapping[int, float] | None:
    """Returns class weights as numbers.

    Args:
        given: the weights, which are valid.
        labels: batches of labels, as `classes_of` takes them; "balanced" counts them.
    """
    if isinstance(given, str):
        return balanced_weights(count_classes(labels))
    return given


def balanced_weights(counts: Mapping[int, int]) -> dict[int, float]:
    """Returns weights under which all classes count alike, and an example counts 1 on average.

    Args:
        counts: by class, its number of examples; classes without examples get no weight.

    Example:
        >>> balanced_weights({0: 1, 1: 3})
        {0: 2.0, 1: 0.6666666666666666}
    """
    present = {label: count for label, count in sorted(counts.items()) if count > 0}
    examples = sum(present.values())
    return {label: examples / (len(present) * count) for label, count in present.items()}


def count_classes(labels: Iterable[Any]) -> dict[int, int]:
    """Counts the examples of each class.

    Args:
        labels: batches of labels, as `classes_of` takes them.
    """
    counts: dict[int, int] = {}
    for batch in labels:
        found = keras.ops.convert_to_numpy(classes_of(batch))
        if not is_one_class(batch):
            raise ValueError(SEVERAL)
        for label, count in zip(*np.unique(found, return_counts=True), strict=True):
            counts[int(label)] = counts.get(int(label), 0) + int(count)
    return counts


def classes_of(labels: Any) -> Any:
    """Returns the classes of a batch of labels, as integers of shape (batch,).

    Args:
        labels: classes, of shape (batch,) or (batch, 1), or one-hot, (batch, classes).

    Raises:
        ValueError: the labels have another form, or are those of several outputs.
    """
    if keras.tree.is_nested(labels):
        raise ValueError(
            "class_weight is for tasks with one output, and these labels are of several. Leave it "
            "out, and give the batches weights per output, (x, y, sample_weight)."
        )
    shape = tuple(labels.shape)
    if len(shape) not in (1, 2):
        raise ValueError(
            f"class_weight is for one class per example, labels of shape (batch,), or one-hot, "
            f"(batch, classes); these have shape {shape}. Leave it out, and give the batches "
            "weights, (x, y, sample_weight)."
        )
    if len(shape) == 1:
        classes = labels
    else:
        classes = keras.ops.argmax(labels, axis=-1) if shape[1] != 1 else labels[:, 0]
    return keras.ops.cast(keras.ops.round(keras.ops.cast(classes, "float32")), "int32")


def is_one_class(labels: Any) -> Any:
    """Tells whether each label of a batch is one class: shares that add up to 1, if one-hot.

    Args:
        labels: labels that `classes_of` takes.

    Returns:
        A bool, or a boolean tensor within a graph.
    """
    if len(labels.shape) == 1 or labels.shape[1] == 1:
        return True
    sums = keras.ops.sum(keras.ops.cast(labels, "float32"), axis=-1)
    return keras.ops.all(keras.ops.abs(sums - 1.0) < 1e-3)


def weights_of(classes: Any, weights: Mapping[int, float]) -> Any:
    """Returns the weights of examples, as floats of shape (batch,).

    Args:
        classes: the classes of examples, integers of shape (batch,).
        weights: weights by class; others count 1.
    """
    table = [float(weights.get(label, 1.0)) for label in range(max(weights) + 2)]  # 1 at the end
    return keras.ops.take(
        keras.ops.convert_to_tensor(table, keras.config.floatx()),
        keras.ops.minimum(classes, len(table) - 1),
    )


def _is_class(value: Any) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and int(value) >= 0


def _is_weight(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and 0 <= float(value) < math.inf
