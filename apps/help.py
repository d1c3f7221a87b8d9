"""The help of a command: its module's docstring, and its flags."""

import dataclasses
import textwrap

WIDTH = 80  # columns in a terminal
REPEATED = ";\n    repeat this option to specify a list of values"  # absl adds it


@dataclasses.dataclass(frozen=True)
class FlagHelp:
    """One flag: `--[no]flip`, whether it is required, and its text with the default."""

    name: str
    required: bool
    text: str


def flag_groups(module) -> list[tuple[str, list[FlagHelp]]]:
    """Returns the flags of a command under a title per group, those of its `MAIN` first."""
    values = module.FLAGS
    names = [name for name in sorted(set(values)) if values[name].name == name]  # without aliases
    main = [name for name in getattr(module, "MAIN", ()) if name in names]
    others = sorted(set(names) - set(main), key=lambda name: (name == "debug", name))
    groups = [("Flags", main), ("More flags" if main else "Flags", others)]
    required = getattr(module, "REQUIRED", ())
    return [
        (title, [_flag_help(values[name], name in required) for name in group])
        for title, group in groups
        if group
    ]


def _flag_help(flag, required: bool) -> FlagHelp:
    shown = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
    default = "" if shown in (None, "") else f" (default: {shown})"
    kind = "--[no]" if flag.boolean else "--"
    return FlagHelp(f"{kind}{flag.name}", required, f"{flag.help.removesuffix(REPEATED)}{default}")


def describe(module, command: str) -> str:
    """Returns a command's help, as a terminal shows it."""
    lines = [_wrapped(f"packnet {command}: {module.__doc__.strip()}")]
    for title, group in flag_groups(module):
        lines += ["", f"{title}:"]
        for flag in group:
            indent = " " * 6
            lines += [f"  {flag.name}{' (required)' if flag.required else ''}"]
            lines += textwrap.wrap(
                flag.text, WIDTH, initial_indent=indent, subsequent_indent=indent,
                break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    """Wraps the paragraphs of a text that are too wide; examples, which are indented, stay."""
    return "\n\n".join(
        textwrap.fill(paragraph, WIDTH, break_on_hyphens=False)
        if "\n " not in paragraph and max(map(len, paragraph.splitlines())) > WIDTH
        else paragraph
        for paragraph in text.split("\n\n")
    )
