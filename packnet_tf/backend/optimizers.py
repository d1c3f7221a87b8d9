"""Resets and checks optimizers; retraining after a prune starts with a fresh state."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.keras_internals import (
    optimized_variables,
    squared_gradients,
    steps_counter,
)
from packnet_tf.backend.text import quoted


def reset_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Resets an optimizer's state (moments, step count, averages) to its initial values.

    The optimizer object stays the same, so a compiled train step keeps using it. A constant
    learning rate is kept; a learning-rate schedule starts again at step 0.

    Args:
        optimizer: any Keras optimizer; one that is not built yet is left as it is.

    Example:
        >>> net.prune(0.75)
        >>> packnet_tf.reset_optimizer(model.optimizer)
    """
    if not optimizer.built:
        return
    # Initial values differ by optimizer (an accumulator may start at 1), so build a new one.
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(variables_of(optimizer))
    for old, new in zip(optimizer.variables, fresh.variables, strict=True):
        old.assign(new)


def check_resettable(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses an optimizer that `reset_optimizer` cannot reset.

    Raises:
        ValueError: Keras cannot recreate it from its configuration.
    """
    try:
        type(optimizer).from_config(optimizer.get_config())
    except Exception as error:  # Keras raises many types
        raise ValueError(
            f"Retraining begins with a fresh optimizer, and Keras cannot make this "
            f"{type(optimizer).__name__} anew from its get_config(): {quoted(error)} Give its "
            "learning rate as a number, or as a LearningRateSchedule that has get_config() and is "
            "registered with @keras.saving.register_keras_serializable(); the same holds for an "
            "optimizer of your own."
        ) from error


def steps_of(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns the number of training steps so far, accumulation steps included."""
    # `iterations` counts updates; with gradient accumulation an update takes several steps.
    return int(ops.convert_to_numpy(steps_counter(_inner(optimizer))))


def take_averages(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Assigns the optimizer's moving averages of the weights to the model, if it keeps them.

    `fit` does this at its end; a custom loop must call it. After a reset there are no averages.
    """
    if int(ops.convert_to_numpy(optimizer.iterations)) > 0:
        optimizer.finalize_variable_values(model.trainable_variables)


def variables_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Returns the variables that a built optimizer updates."""
    return optimized_variables(_inner(optimizer))


def gradient_sizes(
    optimizer: keras.optimizers.Optimizer | None, variables: Sequence[keras.Variable]
) -> list[np.ndarray] | None:
    """Returns the root mean squares of gradients, if an optimizer averages them.

    Args:
        optimizer: any Keras optimizer; None: there is none.
        variables: variables that it trains.

    Returns:
        An array for each variable, of its shape. None if the optimizer keeps no such averages, or
        has made no step.
    """
    if optimizer is None or not optimizer.built:
        return None
    inner = _inner(optimizer)
    averages = squared_gradients(inner)
    if not averages:
        return None
    found = dict(zip(map(id, optimized_variables(inner)), averages, strict=True))
    if any(id(variable) not in found for variable in variables):
        return None
    sizes = [
        np.sqrt(ops.convert_to_numpy(found[id(variable)]).astype(np.float32))
        for variable in variables
    ]
    return sizes if any(size.any() for size in sizes) else None


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer within a LossScaleOptimizer, or the optimizer itself."""
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    return inner


def refuse_strange(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Refuses an optimizer that was built for another model.

    Raises:
        ValueError: it does not know one of the model's trainable variables.
    """
    if not getattr(optimizer, "built", False):
        return
    known = {id(variable) for variable in variables_of(optimizer)}
    strange = [v for v in model.trainable_variables if id(v) not in known]
    if strange:
        raise ValueError(
            f"Cannot train the model of task '{model.task_name or model.name}': its optimizer was "
            f"built for another model and does not know '{strange[0].path}'. Make a new optimizer "
            "for every task, for instance keras.optimizers.SGD(0.001, momentum=0.9)."
        )
