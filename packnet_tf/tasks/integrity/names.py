"""Names of tasks, of their Keras models and of classes; imports neither Keras nor TensorFlow."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


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


def class_names(task: str, given: Sequence[str] | Mapping | None) -> list[str] | None:
    """Returns the names of a task's classes in output order.

    Args:
        task: the task's name, for messages.
        given: a sequence of names; a dict between names and outputs in either direction, such as
            `class_indices` of Keras's generators; or None.

    Returns:
        The names; None if `given` is None.

    Raises:
        ValueError: `given` does not map outputs to classes, or two classes have the same name.

    Example:
        >>> class_names("pets", {"dog": 1, "cat": 0})
        ['cat', 'dog']
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        names = _in_order(task, given)
    elif isinstance(given, (str, bytes, set, frozenset)) or not isinstance(given, Iterable):
        why = "which have no order" if isinstance(given, (set, frozenset)) else "which is no list"
        raise ValueError(
            f"The classes of task '{task}' are {given!r}, {why}. Give their names in output order, "
            "for instance classes=['cat', 'dog']."
        )
    else:
        names = [str(name) for name in given]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        few = ", ".join(map(repr, twice[:3])) + (", ..." if len(twice) > 3 else "")
        raise ValueError(
            f"Classes of task '{task}' have the same name: {few}. Give every output a name of its "
            "own; ImageNet's two cranes, for instance, by their WordNet numbers."
        )
    return names


def _in_order(task: str, given: Mapping) -> list[str]:
    whole = (int, np.integer)
    places = list(range(len(given)))
    for numbers, names in ((given.keys(), given.values()), (given.values(), given.keys())):
        if all(isinstance(n, whole) and not isinstance(n, bool) for n in numbers) and (
            sorted(numbers) == places
        ):
            by_place = dict(zip(numbers, names, strict=True))
            return [str(by_place[place]) for place in places]
    raise ValueError(
        f"The classes of task '{task}' are {dict(given)!r}, of which neither keys nor values are "
        f"the outputs 0 to {len(given) - 1}. Give the names in output order, for instance "
        "classes=['cat', 'dog']."
    )
