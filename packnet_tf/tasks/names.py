"""What a task may be called, and its Keras model; neither Keras nor TensorFlow is imported."""

import re


def check_usable(name: str) -> None:
    """Refuses a name that no file could have.

    Args:
        name: of a new task.

    Raises:
        ValueError: the message says what a name may have.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            f"Cannot add a task named {name!r}: the name must be usable as a file name, up to "
            "100 letters, digits, '_', '-' and '.', not starting with '.' or '-'. Write "
            "'my_task', for instance."
        )


def model_name(task: str) -> str:
    """A name for the Keras model of a task: its own, where TensorFlow takes it for a scope.

    Args:
        task: the task's name.

    Example:
        >>> model_name("birds"), model_name("Vögel"), model_name("_x")
        ('birds', 'V_f6gel', 'task_x')
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", lambda found: f"_{ord(found[0]):x}", task)
    return f"task{name}" if name.startswith("_") else name
