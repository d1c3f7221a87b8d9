"""Settings declared once, as fields of a dataclass, for flags and for checking files."""

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterable, Mapping

from absl import flags

_DEFINE = {
    str: flags.DEFINE_string,
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    tuple: flags.DEFINE_list,
}


def setting(
    default: object,
    help: str,
    *,
    choices: Collection[str] = (),
    least: float | None = None,
    most: float | None = None,
) -> typing.Any:
    """Declares a field of a dataclass of settings; its annotation is the type of the setting.

    Args:
        default: the default value; `dataclasses.MISSING` for a required setting.
        help: help text of the flag.
        choices: the accepted texts; empty for any.
        least, most: bounds of a number, inclusive.
    """
    metadata = {"help": help, "choices": tuple(choices), "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def like(kind: type, name: str, **changes: object) -> typing.Any:
    """Copies a field of another dataclass, with changed arguments of `setting`."""
    field = kind.__dataclass_fields__[name]
    return setting(**{"default": field.default, **field.metadata, **changes})


def define_flags(kind: type, values: flags.FlagValues) -> None:
    """Defines a flag for every field of a dataclass of settings."""
    for field in dataclasses.fields(kind):
        extra = field.metadata
        default = None if field.default is dataclasses.MISSING else field.default
        if extra["choices"]:
            define, limits = flags.DEFINE_enum, {"enum_values": list(extra["choices"])}
        else:
            (value_type,) = set(_types(field)) - {types.NoneType}
            define, limits = _DEFINE[value_type], {}
            if value_type is tuple:
                default = list(default)
            if value_type in (int, float):
                limits = {"lower_bound": extra["least"], "upper_bound": extra["most"]}
        define(field.name, default, help=extra["help"], flag_values=values, **limits)


def check(values: Mapping, where: str, *kinds: type) -> dict:
    """Checks values against dataclasses of settings, and returns them in the fields' types.

    Args:
        values: values by name of the field.
        where: the place in the file, for errors.
        kinds: the dataclasses; their fields have different names.

    Raises:
        ValueError: a name is unknown, or a value is invalid.
    """
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{where} is {values!r}; expected names and values, for instance epochs: 12."
        )
    fields = {field.name: field for kind in kinds for field in dataclasses.fields(kind)}
    check_names(values, fields, where)
    return {name: _checked(fields[name], value, where) for name, value in values.items()}


def check_names(names: Iterable, known: Collection[str], where: str) -> None:
    """Checks names against the known ones.

    Raises:
        ValueError: a name is unknown; the message suggests the nearest.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"{where} has '{name}'. {hint}It takes: {', '.join(known)}.")


def _checked(field: dataclasses.Field, value: typing.Any, where: str) -> object:
    """Returns a value in the type of its field."""
    extra, taken = field.metadata, _types(field)
    if float in taken and type(value) in (int, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-3 as text
    if value is None and types.NoneType in taken:
        return None
    if extra["choices"] and value not in extra["choices"]:
        expected = f"{value}; write one of {', '.join(extra['choices'])}"
    elif type(value) not in taken:
        names = ("null" if kind is types.NoneType else kind.__name__ for kind in taken)
        expected = f"{value!r}; expected {' or '.join(names)}"
    elif type(value) in (int, float) and not _within(value, extra["least"], extra["most"]):
        upwards = "up" if extra["most"] is None else f"to {extra['most']}"
        expected = f"{value}; expected a number from {extra['least']} {upwards}"
    else:
        return value
    raise ValueError(f"{where} has {field.name}: {expected}.")


def _within(number: float, least: float | None, most: float | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _types(field: dataclasses.Field) -> tuple[type, ...]:
    """Returns the classes that a value may have."""
    union = isinstance(field.type, types.UnionType)
    kinds = typing.get_args(field.type) if union else (field.type,)
    return tuple(typing.get_origin(kind) or kind for kind in kinds)
