"""Checks of what the user gives to the trainer, and the results of metrics as numbers.

Each check raises a `ValueError` that says what to write instead.
"""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import keras

Rate = float | Callable[[int], float]


def check_whole(least: int, **values: Any) -> list[int]:
    """Refuses values that are not integers of at least `least`; returns them as Python ints."""
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(
                f"{name} is a whole number from {least}; got {value!r}. Write {name}=10."
            )
    return [int(value) for value in values.values()]


def check_choice(**values: Any) -> None:
    """Refuses values other than True, False and "auto"."""
    for name, value in values.items():
        if not isinstance(value, bool) and value != "auto":
            raise ValueError(
                f'{name} is True, False or "auto"; got {value!r}. Write {name}="auto".'
            )


EXAMPLES = {  # of functions that the user may give
    "optimizer": "lambda rate: keras.optimizers.Adam(rate)",
    "criterion": "packnet_tf.magnitude",
}


def check_functions(**values: Any) -> None:
    """Refuses values that are neither None nor functions."""
    for name, value in values.items():
        if value is not None and not callable(value):
            raise ValueError(
                f"{name} is a function that packnet_tf calls; got {value!r}. Write "
                f"{name}={EXAMPLES.get(name, 'print')}."
            )


def check_rates(**values: Any) -> None:
    """Refuses values that are neither a learning rate nor a function of the epoch."""
    for name, value in values.items():
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        # A Keras schedule is callable too, but its argument is the step.
        schedule = isinstance(value, keras.optimizers.schedules.LearningRateSchedule)
        if schedule or not (callable(value) or (number and 0 <= value < math.inf)):
            raise ValueError(
                f"{name} is a number from 0, or a function of the epoch; got {value!r}. Write "
                f"{name}=0.001; pass a Keras schedule to the optimizer."
            )


def as_numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """Converts the results of metrics to Python floats, which JSON can hold.

    Args:
        results: results by name: numbers, or arrays, whose elements get names with their places.

    Example:
        >>> as_numbers({"loss": 0.5, "f1_score": np.array([0.25, 1.0])})
        {'loss': 0.5, 'f1_score_0': 0.25, 'f1_score_1': 1.0}
    """
    found = {}
    for name, value in results.items():
        array = keras.ops.convert_to_numpy(value)
        if array.ndim == 0:
            found[name] = float(array)
        else:
            found |= {f"{name}_{place}": float(part) for place, part in enumerate(array.ravel())}
    return found
