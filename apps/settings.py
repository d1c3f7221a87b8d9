"""Settings declared once: fields of a dataclass, which make flags and check what a file says."""

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
    """A field of a dataclass of settings; its annotation says the type.

    Args:
        default: `dataclasses.MISSING` where it has to be given.
        help: what it is, for the help of a command and for who reads the code.
        choices: the texts that it takes; empty: any.
        least, most: bounds of a number.
    """
    metadata = {"help": help, "choices": tuple(choices), "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


def like(kind: type, name: str, **changes: object) -> typing.Any:
    """A copy of a field of another dataclass, but for arguments of `setting` given here."""
    field = kind.__dataclass_fields__[name]
    return setting(**{"default": field.default, **field.metadata, **changes})


def define_flags(kind: type, values: flags.FlagValues) -> None:
    """Defines a flag for every field of a dataclass of settings, by its name."""
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
    """Returns values that dataclasses of settings take.

    Args:
        values: by the names of their fields.
        where: the place in the file, for errors.
        kinds: the dataclasses; no two have a field of one name.

    Raises:
        ValueError: a name or a value is none of theirs.
    """
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{where} is {values!r}; expected names and values, for instance epochs: 12."
        )
    fields = {field.name: field for kind in kinds for field in dataclasses.fields(kind)}
    check_names(values, fields, where)
    return {name: _checked(fields[name], value, where) for name, value in values.items()}


def check_names(names: Iterable, known: Collection[str], where: str) -> None:
    """Refuses a name that is not among the known ones, and suggests the nearest.

    Raises:
        ValueError: there is one.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise ValueError(f"{where} has '{name}'. {hint}It takes: {', '.join(known)}.")


def _checked(field: dataclasses.Field, value: typing.Any, where: str) -> object:
    """A value as its field takes it."""
    extra, taken = field.metadata, _types(field)
    if float in taken and type(value) in (int, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # of text too, which YAML 1.1 takes 1e-3 for
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
    """The classes that a value may be of."""
    union = isinstance(field.type, types.UnionType)
    kinds = typing.get_args(field.type) if union else (field.type,)
    return tuple(typing.get_origin(kind) or kind for kind in kinds)
