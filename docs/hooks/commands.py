"""Writes a page per command of `packnet`, from the same docstring and flags as its help."""

import html
import importlib
import re
import textwrap

from mkdocs.structure.files import File

from packnet_tf.apps.help import flag_groups
from packnet_tf.apps.main import COMMANDS

FLAG = re.compile(r"(--\w+(?:=[\w.,/]+)?)")
MARKUP = re.compile(r"([\\`*_\[\]|])")
INTRODUCTION = """# Commands

`packnet help` lists the commands, and `packnet help train` shows the flags of one, as these pages
do. Names of flags may have hyphens: `--image-size` is `--image_size`. The exit status is 0 if a
command is done, 1 if it failed, with a sentence on stderr, 2 for wrong flags, and 130 after Ctrl-C.
`--debug` shows the traceback of an error.

| command | does |
|---|---|
"""


def on_config(config):
    """Completes the navigation: the entry `Commands` gets a page per command."""
    pages = ["commands/index.md", *({f"packnet {name}": _path(name)} for name in COMMANDS)]
    config.nav = [{"Commands": pages} if "Commands" in entry else entry for entry in config.nav]


def on_files(files, config):
    """Adds the pages."""
    rows = [f"| [`packnet {n}`]({n}.md) | {_prose(text)} |" for n, text in COMMANDS.items()]
    pages = {"commands/index.md": INTRODUCTION + "\n".join(rows)}
    for name in COMMANDS:
        module = importlib.import_module(f"packnet_tf.apps.commands.{name}")
        pages[_path(name)] = page(module, name)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def page(module, name: str) -> str:
    """Returns the page of a command: its docstring, its examples, and its flags."""
    summary, *paragraphs = module.__doc__.strip().split("\n\n")
    parts = [f"# packnet {name}", _prose(summary[0].upper() + summary[1:])]
    parts += [_paragraph(text) for text in paragraphs]
    for title, group in flag_groups(module):
        parts.append(f"## {title}")
        for flag in group:
            required = ", required" if flag.required else ""
            parts.append(f"`{flag.name}`{required}\n:   {_prose(flag.text)}")
    return "\n\n".join(parts)


def _path(name: str) -> str:
    return f"commands/{name}.md"


def _paragraph(text: str) -> str:
    """Returns prose as Markdown; what is indented, or has columns, as code."""
    head, _, rest = text.partition("\n")
    if rest.startswith(" "):
        return f"{_prose(head)}\n\n```sh\n{textwrap.dedent(rest)}\n```"
    if re.search(r"\S {3,}\S", text):
        return f"```text\n{text}\n```"
    return _prose(text)


def _prose(text: str) -> str:
    """Escapes what Markdown and HTML would interpret, and marks flags as code."""
    parts = FLAG.split(" ".join(text.split()))  # prose and flags in turns
    parts[::2] = [MARKUP.sub(r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return "".join(parts)
