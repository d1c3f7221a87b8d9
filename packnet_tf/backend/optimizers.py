"""A fresh optimizer state, for retraining after a prune."""

from typing import Any

import keras
from keras import ops

from packnet_tf.backend.keras_internals import optimized_variables, steps_counter


def reset_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Puts an optimizer's state (moments, step count, averages) back to its beginning.

    The optimizer object stays, so a compiled train step goes on using it. Its learning rate stays
    too; a learning-rate schedule starts again from step 0.

    Args:
        optimizer: any Keras optimizer; one that has not been built is fresh already.

    Example:
        >>> net.prune(0.75)
        >>> packnet_tf.reset_optimizer(model.optimizer)
    """
    if not optimizer.built:
        return
    # Initial values differ by optimizer (ones, an accumulator's start): a new one knows them.
    fresh = type(optimizer).from_config(optimizer.get_config())
    fresh.build(variables_of(optimizer))
    for old, new in zip(optimizer.variables, fresh.variables, strict=True):
        old.assign(new)


def check_resettable(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses an optimizer that `reset_optimizer` could not reset.

    Raises:
        ValueError: Keras cannot make it anew from its configuration.
    """
    try:
        type(optimizer).from_config(optimizer.get_config())
    except Exception as error:  # Keras raises many kinds
        raise ValueError(
            f"Retraining begins with a fresh optimizer, and Keras cannot make this "
            f"{type(optimizer).__name__} anew from its get_config(): {error} Give its learning "
            "rate as a number, or as a LearningRateSchedule that has get_config() and is "
            "registered with @keras.saving.register_keras_serializable(); the same holds for an "
            "optimizer of your own."
        ) from error


def steps_of(optimizer: keras.optimizers.Optimizer) -> int:
    """How many training steps an optimizer has done, those that only accumulated included."""
    # `iterations` counts updates, of which accumulation makes one of several steps.
    return int(ops.convert_to_numpy(steps_counter(_inner(optimizer))))


def take_averages(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Gives the model the moving averages of its weights, where the optimizer keeps them.

    `fit` does so at its end; a loop of one's own must. Right after a reset there are none.
    """
    if int(ops.convert_to_numpy(optimizer.iterations)) > 0:
        optimizer.finalize_variable_values(model.trainable_variables)


def variables_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that a built optimizer updates."""
    return optimized_variables(_inner(optimizer))


def _inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer within a LossScaleOptimizer."""
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    return inner


def refuse_strange(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Refuses an optimizer that was built for another model than the one to train.

    Raises:
        ValueError: it cannot update the model's variables.
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
