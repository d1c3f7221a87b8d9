"""Labels that a loss of class numbers cannot take, and what to say of them."""

import itertools
from collections.abc import Iterable
from typing import Any

import keras

from packnet_tf.backend.types import Tensors

MOST_BATCHES = 1000  # to look at once training has failed
_SPARSE = ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy")


def takes_class_numbers(loss: Any) -> bool:
    """Returns whether a loss is Keras's sparse categorical cross-entropy, by any of its names."""
    named = (loss, type(loss).__name__, getattr(loss, "__name__", None))
    return any(isinstance(name, str) and name in _SPARSE for name in named)


def check_one_hot(task: str, loss: Any, labels: Tensors, outputs: tuple) -> None:
    """Refuses one-hot labels for a loss that takes the numbers of classes.

    Args:
        task: the task's name.
        loss: the trainer's loss.
        labels: a batch of labels.
        outputs: shape of the head's outputs; labels of outputs per step are not one-hot.

    Raises:
        ValueError: the labels are one-hot.
    """
    if not takes_class_numbers(loss) or keras.tree.is_nested(labels) or len(outputs) != 2:
        return
    shape = tuple(getattr(labels, "shape", ()))
    if len(shape) == 2 and shape[1] == outputs[1] > 1:
        raise ValueError(
            f"The labels of task '{task}' have shape (batch, {outputs[1]}), as one-hot labels do, "
            "and the loss takes numbers of classes. Write PackTrainer(loss=keras.losses."
            "CategoricalCrossentropy(from_logits=True)), or give the numbers, labels.argmax(-1)."
        )


def outside(task: str, loss: Any, labels: Iterable, outputs: int) -> str | None:
    """Says which label is no number of the head's classes, once training has failed.

    TensorFlow stops at such a label on CPUs; on GPUs the loss becomes NaN.

    Args:
        task: the task's name.
        loss: the trainer's loss.
        labels: batches of labels.
        outputs: number of outputs of the head.

    Returns:
        A sentence, or None if all labels fit, or another kind of loss takes them.
    """
    if not takes_class_numbers(loss):
        return None
    for batch in itertools.islice(labels, MOST_BATCHES):
        if keras.tree.is_nested(batch):
            return None
        found = keras.ops.convert_to_numpy(batch)
        ignored = found == getattr(loss, "ignore_class", None)
        wrong = found[((found < 0) | (found >= outputs)) & ~ignored]
        if wrong.size:
            return (
                f"Task '{task}' has the label {wrong[0]}, and the {outputs} outputs of its head "
                f"are for 0 to {outputs - 1}. Count classes from 0, or give the head an output "
                "for each."
            )
    return None
