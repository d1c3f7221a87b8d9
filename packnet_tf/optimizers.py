"""A fresh optimizer state, for retraining after a prune."""

import keras


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


def variables_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that a built optimizer updates."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # within a LossScaleOptimizer
    return inner._trainable_variables


def refuse_strange(optimizer, model: keras.Model) -> None:
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
            f"Cannot train the model of task '{model.name}': its optimizer was built for "
            f"another model and does not know '{strange[0].path}'. Make a new optimizer for every "
            "task, for instance keras.optimizers.SGD(0.001, momentum=0.9)."
        )
