"""Creates new metrics for every task, because Keras metrics hold state and belong to a model."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

# Keras's names of the accuracy of a task with classes, by the form of its labels.
ACCURACIES = (
    "acc",
    "sparse_categorical_accuracy",
    "categorical_accuracy",
    "binary_accuracy",
)


def with_accuracy(measured: Mapping[str, float]) -> dict[str, float]:
    """Returns results with an accuracy by that name, if they have one by another of Keras's names.

    Args:
        measured: results of `evaluate` by name.
    """
    named = [measured[name] for name in ACCURACIES if name in measured]
    return {**({"accuracy": named[0]} if named else {}), **measured}


def new_metric(metric: Any) -> Any:
    """Creates a metric from another one's configuration; returns names and functions unchanged.

    Raises:
        ValueError: the configuration lacks an argument of the constructor.
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
        if all(p.kind != p.VAR_KEYWORD for p in given):  # get_config may add a dtype
            config = {name: value for name, value in config.items() if name in named}
    return cls.from_config(config)
