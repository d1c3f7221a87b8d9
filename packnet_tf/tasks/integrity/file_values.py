"""Types and ranges of the JSON values in a pack's file."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from packnet_tf.tasks.integrity.names import check_usable


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of JSON value.

    Attributes:
        text: what it is, for messages.
        holds: whether a value is one.
        first: the first format of which every file has it; None: it may be missing in any.
    """

    text: str
    holds: Callable[[Any], bool]
    first: int | None = None

    def since(self, first: int) -> "Kind":
        """Returns the kind of a value that every file has, from a format on."""
        return dataclasses.replace(self, first=first)

    def always(self) -> "Kind":
        """Returns the kind of a value that every file has."""
        return self.since(0)


def check_values(what: str, values: Any, kinds: Mapping[str, Kind], version: int) -> None:
    """Refuses JSON values of other kinds.

    Args:
        what: what the values describe, for the message.
        values: the values by name.
        kinds: the kind of each; other names are ignored.
        version: the file's format.

    Raises:
        ValueError: a value is missing or of another kind; the message names it.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} is {values!r:.80}; expected names and values")
    for name, kind in kinds.items():
        if name not in values:
            if kind.first is not None and kind.first <= version:
                raise ValueError(f"{what} has no {name}; expected {kind.text}")
        elif not kind.holds(values[name]):
            raise ValueError(f"{what} has {name}={values[name]!r:.80}; expected {kind.text}")


def check_archive(config: Any, version: int) -> None:
    """Refuses a configuration of a pack whose own values are of other kinds.

    Args:
        config: the configuration, without the tasks.
        version: the file's format.

    Raises:
        ValueError: as for `check_values`.
    """
    check_values("its configuration", config, _ARCHIVE, version)
    check_values("the description of the pack", config["facts"], _FACTS, version)


def check_task(number: int, task: Any, version: int) -> None:
    """Refuses a task's configuration whose values are of other kinds, or do not fit each other.

    Args:
        number: the task's place in the order of packing, from 1.
        task: the configuration.
        version: the file's format.

    Raises:
        ValueError: as for `check_values`, or the name cannot be a task's.
    """
    check_values(f"task number {number}", task, _TASK, version)
    check_usable(task["name"])
    if task.get("adopted") and number > 1:
        raise ValueError(f"task number {number} is adopted; only the first task can be")
    classes, outputs = task["classes"], task["head"]["config"].get("units", None)
    if classes is not None and task["head"]["class_name"] == "Dense" and len(classes) != outputs:
        raise ValueError(
            f"task number {number} has {len(classes)} class names for {outputs!r:.80} outputs"
        )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_fraction(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _all(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _by_name(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _is_weight(value: Any) -> bool:
    """Whether it is a pair of a shape and the name of a dtype."""
    if not (isinstance(value, list) and len(value) == 2):
        return False
    shape, dtype = value
    numeric = ("float", "bfloat", "int", "uint", "bool")
    return _all(_is_count)(shape) and _is_text(dtype) and dtype.startswith(numeric)


def _is_head(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("class_name"))
        and isinstance(value.get("config"), dict)
    )


def _are_places(value: Any) -> bool:
    return _all(_is_count)(value) and value == sorted(set(value))


_COUNT = Kind("a whole number from 0", _is_count)
_OBJECT = Kind("names and values", lambda value: isinstance(value, dict))
_PHASE = Kind("0 or 1", lambda value: _is_count(value) and value <= 1)
_TEXT = Kind("text", _is_text)
_DIGEST = Kind("a SHA-256", lambda value: _is_text(value) and len(value) in (0, 64))

_ARCHIVE = {
    "facts": _OBJECT.always(),
    "trunk": _OBJECT.always(),
    "tasks": Kind("a list, as JSON in a string", _is_text).always(),
    "phase": _PHASE.always(),
    "reached": _PHASE,
    "batches_seen": Kind("a number from 0", lambda value: _is_number(value) and value >= 0),
}
_FACTS = {
    "format": _COUNT.always(),
    "committed": _COUNT.always(),
    "biases": _TEXT.always(),
    "norms": _TEXT.always(),
    "restart": _TEXT.always(),
    "embeddings": _TEXT.always(),
    "stem": Kind("the name of a layer, or null", _or_none(_is_text)),
    "paths": Kind("a list of paths", _all(_is_text)).always(),
    "notes": Kind("texts by name", _by_name(_is_text)).always(),
    "version": _TEXT.since(8),
    "weight_digests": Kind("a list of SHA-256", _all(_DIGEST.holds)).since(8),
    "shared_digest": _DIGEST.since(8),
    "unowned_digest": _DIGEST.since(8),
}
_TASK = {
    "name": _TEXT.always(),
    "classes": Kind("a list of names, or null", _or_none(_all(_is_text))).always(),
    "claim_ratio": Kind("a fraction, 0 to 1", _is_fraction).always(),
    "head": Kind("the Keras configuration of a layer", _is_head).always(),
    "head_weights": Kind("pairs of a shape and a dtype", _all(_is_weight)).always(),
    "own_places": Kind("ascending whole numbers", _are_places).always(),
    "results": Kind("numbers by name", _by_name(lambda value: type(value) in (int, float))),
    "metadata": _OBJECT,
    "sees": Kind("whole numbers", _all(_is_count)).since(6),
    "adopted": Kind("true or false", lambda value: isinstance(value, bool)),
    "statistics": Kind('"task" or "trunk"', lambda value: value in ("task", "trunk")),
    "overlay": Kind(
        "a fraction above 0, or null", _or_none(lambda value: _is_fraction(value) and value > 0)
    ),
    "overlay_bytes": _COUNT,
    "owned_digest": _DIGEST.since(8),
    "values_digest": _DIGEST.since(8),
}
