"""What a task may be called; neither Keras nor TensorFlow is imported."""

import re


def check_usable(name: str) -> None:
    """Refuses a name that no file could have.

    Raises:
        ValueError: the message says what a name may have.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            f"Cannot add a task named {name!r}: the name must be usable as a file name, up to "
            "100 letters, digits, '_', '-' and '.', not starting with '.' or '-'. Write "
            "'my_task', for instance."
        )
