"""When a task's training has diverged, and the error that says so."""

import pathlib

from packnet_tf.net import PackNet
from packnet_tf.packing.weight import is_finite
from packnet_tf.tasks.task_model import TaskModel


def trains_finite(net: PackNet, model: TaskModel) -> bool:
    """Returns whether all that the open task trains is finite.

    The loss does not say so: it is that of before each step, and the last step of an epoch may
    break the weights.

    Args:
        net: the pack.
        model: the model of its open task.
    """
    packed = net.state.weights.values()
    kernels = {id(weight.trained[0]) for weight in packed}
    others = [v for v in model.trainable_variables if id(v) not in kernels]
    return all(weight.claim_is_finite() for weight in packed) and all(
        is_finite(variable.value) for variable in others
    )


def diverged(
    task: str, epoch: int, rate: float, directory: pathlib.Path | None
) -> FloatingPointError:
    """Creates the error for a task whose loss or weights are NaN or infinite.

    Args:
        task: the task's name.
        epoch: the epoch after which they are, from 0.
        rate: its learning rate.
        directory: the run's directory, which has the epochs before it; None: the run has none.
    """
    if directory is None:
        kept = "Nothing was kept, since the trainer has no directory: train it again"
    elif epoch == 0:
        kept = "It was the first one: the same command begins the task again"
    else:
        kept = (
            f"The epochs before it are in '{directory}' (delete 'checkpoint.npz' there to begin "
            "the task again): the same command goes on from there"
        )
    return FloatingPointError(
        f"Training of task '{task}' diverged: the loss of epoch {epoch + 1} is NaN or infinite, or "
        f"weights are, at a learning rate of {rate:g}. {kept} with a lower learning_rate, for "
        "instance a third of it."
    )
