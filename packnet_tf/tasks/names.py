"""Names of tasks and of their Keras models; imports neither Keras nor TensorFlow."""

import re


def check_usable(name: str) -> None:
    """Refuses a task name that cannot be a file name.

    Args:
        name: the name of a new task.

    Raises:
        ValueError: the message says which names are allowed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            f"Cannot add a task named {name!r}: the name must be usable as a file name, up to "
            "100 letters, digits, '_', '-' and '.', not starting with '.' or '-'. Write "
            "'my_task', for instance."
        )


def model_name(task: str) -> str:
    """Returns a name for a task's Keras model that is valid as a TensorFlow scope.

    Args:
        task: the task's name; it is kept if it is valid.

    Example:
        >>> model_name("birds"), model_name("Vögel"), model_name("_x")
        ('birds', 'V_f6gel', 'task_x')
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", lambda found: f"_{ord(found[0]):x}", task)
    return f"task{name}" if name.startswith("_") else name
