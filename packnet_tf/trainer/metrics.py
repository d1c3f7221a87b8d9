"""New metrics for every task: Keras's hold state, and cannot change their model."""

import inspect
from typing import Any

import keras


def new_metric(metric: Any) -> Any:
    """A metric like another one, made from its configuration; names and functions as they are.

    Raises:
        ValueError: its configuration does not say all that it was made with.
    """
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    cls, config = type(metric), metric.get_config()
    if not cls.__module__.startswith("keras."):
        given = inspect.signature(cls).parameters.values()
        named = [p.name for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        missing = [name for name in named if name not in (*config, "name", "dtype")]
        if missing:
            raise ValueError(
                f"Every task needs a metric '{metric.name}' of its own, and the get_config() of "
                f"{cls.__name__} does not return its {missing[0]}. Return every argument of "
                "__init__ there."
            )
        if all(p.kind != p.VAR_KEYWORD for p in given):  # Keras's own tells of a dtype
            config = {name: value for name, value in config.items() if name in named}
    return cls.from_config(config)


def as_numbers(results: dict) -> dict[str, float]:
    """Results of metrics as Python's floats, which JSON can hold."""
    return {name: float(value) for name, value in results.items()}
