"""Dicts in JSON files, written atomically."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.text import quoted

DEPTH = 100  # of lists and dicts in each other; a model in a model in a model has about 30
MOST = 10**6  # lists and dicts; they take thirty times the memory of their text


def parse_json(text: str | bytes, most: int = MOST, deepest: int = DEPTH) -> Any:
    """Parses the JSON of a file, within bounds.

    Args:
        text: the JSON text.
        most: how many lists and dicts it may have.
        deepest: how deep they may be nested.

    Raises:
        ValueError: it is no JSON, or out of bounds.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise _too_deep(deepest) from None
    level, depth, count = [found], 0, 0
    while level := [x for x in level if isinstance(x, (dict, list))]:
        depth, count = depth + 1, count + len(level)
        if depth > deepest:
            raise _too_deep(deepest)
        if count > most:
            raise ValueError(f"its JSON has more than {most:,} lists and dicts")
        level = [x for each in level for x in (each.values() if isinstance(each, dict) else each)]
    return found


def _too_deep(deepest: int) -> ValueError:
    return ValueError(f"its JSON is nested more than {deepest} deep")


def as_json(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns a dict in the form in which a JSON file gives it back.

    Args:
        value: the dict.
        what: its description, for the message.

    Raises:
        ValueError: it is no dict, or JSON cannot represent one of its values; the message names it.

    Example:
        >>> as_json({"sizes": (96, 96)}, "The settings")
        {'sizes': [96, 96]}
    """
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{what} cannot be saved: expected a dict, got {quoted(repr(value))}. Write "
            '{"name": "value"}.'
        )
    found = {}
    for key, entry in value.items():
        try:
            text = json.dumps(entry)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{what} cannot be saved: {quoted(repr(key))} is {quoted(repr(entry))}, and JSON "
                "has numbers, strings, lists and dicts. Write float(x) for a number of NumPy."
            ) from error
        try:
            # Not as deep as what is read, since the dict will be a part of a larger one.
            found[str(key)] = parse_json(text, deepest=DEPTH // 2)
        except ValueError as error:
            raise ValueError(
                f"{what} cannot be saved: of {quoted(repr(key))}, {error}. Write it to a file, and "
                "the name of that file here."
            ) from error
    return found


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a dict; returns an empty one if there is no file.

    Args:
        path: the file.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    if not path.exists():
        return {}
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"'{path}' is damaged: {quoted(error)}. {_REMEDY}") from error
    if not isinstance(found, dict):
        raise ValueError(f"'{path}' is damaged: it holds no dict. {_REMEDY}")
    return found


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes a dict atomically; creates the folder.

    Args:
        path: the file.
        value: the dict, of JSON values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")


_REMEDY = "Restore it from a backup, or delete it: what it says is then found out again."
