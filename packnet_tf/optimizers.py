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
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # within a LossScaleOptimizer
    fresh.build(inner._trainable_variables)
    for old, new in zip(optimizer.variables, fresh.variables, strict=True):
        old.assign(new)
