"""Names of tasks, of their Keras models and of classes; imports neither Keras nor TensorFlow."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from packnet_tf.backend.text import listed, quoted

# Windows opens a device under these names, whatever follows a dot, in upper and lower case.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
_BYTES = 200  # of UTF-8: systems allow 255 for a file's name, its suffix included


def check_usable(name: str) -> None:
    """Refuses a task name that cannot be a file name.

    Args:
        name: the name of a task, perhaps one of a file.

    Raises:
        ValueError: the message says which names are allowed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            f"Cannot add a task named {quoted(repr(name))}: the name must be usable as a file "
            "name, up to 100 letters, digits, '_', '-' and '.', not starting with '.' or '-'. "
            "Write 'my_task', for instance."
        )


def check_portable(name: str) -> None:
    """Refuses the name of a new task that cannot be a file name on every system.

    Args:
        name: the name; packs that have such a task already can be read.

    Raises:
        ValueError: `check_usable` refuses it; or Windows, or the file system, would.
    """
    check_usable(name)
    if _DEVICES.fullmatch(name):
        why = "Windows opens a device under that name, so no file can have it"
    elif name.endswith("."):
        why = "Windows drops a '.' at the end of a file name"
    elif len(name.encode()) > _BYTES:
        why = f"it takes {len(name.encode())} bytes, and file names have room for {_BYTES}"
    else:
        return
    raise ValueError(f"Cannot add a task named '{name}': {why}. Write 'my_task', for instance.")


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
            f"The classes of task '{task}' are {quoted(repr(given))}, {why}. Give their names in "
            "output order, for instance classes=['cat', 'dog']."
        )
    else:
        names = [str(name) for name in given]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"Classes of task '{task}' have the same name: {listed(twice)}. Give every output "
            "a name of its own; ImageNet's two cranes, for instance, by their WordNet numbers."
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
        f"The classes of task '{task}' are {quoted(dict(given))}, of which neither keys nor "
        f"values are the outputs 0 to {len(given) - 1}. Give the names in output order, for "
        "instance classes=['cat', 'dog']."
    )
