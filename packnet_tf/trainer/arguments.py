"""What can be an argument of `PackTrainer`, and what is refused in which words.

Each raises a `ValueError` that says what to write instead.
"""

import math
import numbers
from typing import Any

import keras

from packnet_tf.trainer.task import PendingTask, Task


def check_whole(least: int, **values: Any) -> list[int]:
    """Returns the values as they are in Python; refuses what is no whole number from `least`."""
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(
                f"{name} is a whole number from {least}; got {value!r}. Write {name}=10."
            )
    return [int(value) for value in values.values()]


def check_choice(**values: Any) -> None:
    """Refuses what is neither True nor False nor "auto"."""
    for name, value in values.items():
        if not isinstance(value, bool) and value != "auto":
            raise ValueError(
                f'{name} is True, False or "auto"; got {value!r}. Write {name}="auto".'
            )


def check_rates(**values: Any) -> None:
    """Refuses what is neither a learning rate nor a function of the epoch."""
    for name, value in values.items():
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        # A schedule of Keras can be called too, but counts steps.
        schedule = isinstance(value, keras.optimizers.schedules.LearningRateSchedule)
        if schedule or not (callable(value) or (number and 0 <= value < math.inf)):
            raise ValueError(
                f"{name} is a number from 0, or a function of the epoch; got {value!r}. Write "
                f"{name}=0.001; a schedule of Keras goes to the optimizer itself."
            )


def check_tasks(tasks: list) -> None:
    """Refuses what is no list of tasks of different names."""
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
    """A setting as a checkpoint notes it, to notice that it has changed."""
    if isinstance(value, (list, tuple)):
        return [plain_setting(part) for part in value]
    if callable(value):
        return "a function"
    return value if value is None or isinstance(value, (int, float, str)) else repr(value)
