"""Checks of the arguments of `PackTrainer`.

Each raises a `ValueError` that says what to write instead.
"""

from typing import Any

from packnet_tf.backend.distribution import has_accelerator
from packnet_tf.backend.types import Strategy
from packnet_tf.trainer.task import PendingTask, Task
from packnet_tf.training.auto import Auto
from packnet_tf.training.schedules import Schedule

Prune = float | Schedule | Auto


def check_tasks(tasks: list) -> None:
    """Refuses lists that hold anything but tasks, or two tasks of the same name."""
    for place, task in enumerate(tasks):
        if not isinstance(task, (Task, PendingTask)):
            raise ValueError(
                f"fit takes a list of packnet_tf.Task; got a {type(task).__name__}. Write "
                "fit([packnet_tf.Task('birds', head, (images, labels))])."
            )
        if task.name in [other.name for other in tasks[:place]]:
            raise ValueError(
                f"Two of these tasks are named '{task.name}'. Give each one a name of its own."
            )


def plain_setting(value: Any) -> Any:
    """Converts a setting to a JSON value, so that a checkpoint can tell whether it changed."""
    if isinstance(value, (list, tuple)):
        return [plain_setting(part) for part in value]
    if callable(value):
        return "a function"
    return value if value is None or isinstance(value, (int, float, str)) else repr(value)


def check_search(task: Task, prune: Prune, retrain_epochs: int) -> None:
    """Refuses a search for the ratio, or the overlay, that nothing could judge.

    Args:
        task: the task.
        prune: what it prunes by.
        retrain_epochs: the trainer's setting.

    Raises:
        ValueError: the task has no validation data, or no epochs to retrain an overlay.
    """
    what = 'overlay="auto"' if task.overlay == "auto" else "Auto"
    if (isinstance(prune, Auto) or task.overlay == "auto") and task.validation is None:
        raise ValueError(
            f"{what} needs validation data, and task '{task.name}' has none. Write Task("
            f"'{task.name}', head, train, validation)."
        )
    epochs = retrain_epochs if task.retrain_epochs is None else task.retrain_epochs
    if task.overlay == "auto" and epochs == 0:
        raise ValueError(
            'overlay="auto" judges an overlay after its retraining, and there is none. Write '
            "PackTrainer(retrain_epochs=5), or a number, overlay=0.05."
        )


def uses_xla(jit_compile: bool | str, strategy: Strategy | None) -> bool:
    """Returns whether steps are compiled by XLA.

    Args:
        jit_compile: True, False or "auto".
        strategy: the `tf.distribute.Strategy` of the pack.

    Raises:
        ValueError: it is True, and the pack is spread over several devices.
    """
    replicas = 1 if strategy is None else strategy.num_replicas_in_sync
    if jit_compile == "auto":
        return has_accelerator() and replicas == 1
    if jit_compile and replicas > 1:
        raise ValueError(
            f"jit_compile=True trains on one device, and this pack is spread over {replicas}: "
            "TensorFlow cannot compile the exchange of gradients with XLA. Write "
            "jit_compile=False."
        )
    return bool(jit_compile)
