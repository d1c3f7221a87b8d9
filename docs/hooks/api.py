"""Writes a page per public name, which mkdocstrings fills from the docstring."""

import pathlib
import shutil
import tempfile

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

import packnet_tf
import packnet_tf.export

ROOT = pathlib.Path(__file__).parents[2]
INTRODUCTION = """# API

Every public name: those of `packnet_tf`, and those of `packnet_tf.export`. Other names may change
without notice.
"""
NAMES = {
    module.__name__: [f"{module.__name__}.{n}" for n in module.__all__ if n != "__version__"]
    for module in (packnet_tf, packnet_tf.export)
}
tree = None  # a folder with links, in which modules lie where Python imports them from


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config):
    """Shows the modules to mkdocstrings, and completes the navigation's entry `API`."""
    global tree
    tree = pathlib.Path(tempfile.mkdtemp())
    (tree / "packnet_tf").mkdir()
    for path in [*(ROOT / "packnet_tf").iterdir(), ROOT / "export"]:
        (tree / "packnet_tf" / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(tree)]
    pages = ["api/index.md"]
    for module, names in NAMES.items():
        pages.append({module: [{_title(name): _path(name)} for name in names]})
    config.nav = [{"API": pages} if "API" in entry else entry for entry in config.nav]


def on_files(files, config):
    """Adds the pages."""
    package = griffe.load("packnet_tf", search_paths=[str(tree)], try_relative_path=False)
    content = f"{INTRODUCTION}\n`packnet_tf.__version__` is the version, a string.\n"
    for module, names in NAMES.items():
        content += f"\n## {module}\n\n| name | is |\n|---|---|\n"
        for name in names:
            docstring = package[name.partition(".")[2]].docstring
            if docstring is None or not docstring.value:
                raise PluginError(f"{name} is public and has no docstring; write one.")
            summary = docstring.value.split("\n")[0]
            content += f"| [`{_title(name)}`]({_title(name)}.md) | {summary} |\n"
            page = f"---\ntitle: {_title(name)}\n---\n\n::: {name}\n"
            files.append(File.generated(config, _path(name), content=page))
    files.append(File.generated(config, "api/index.md", content=content))
    return files


def on_shutdown():
    if tree is not None:
        shutil.rmtree(tree)


def _title(name: str) -> str:
    return name.rpartition(".")[2]


def _path(name: str) -> str:
    return f"api/{_title(name)}.md"
