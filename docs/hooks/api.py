"""Writes a page per public name, which mkdocstrings fills from the docstring."""

import pathlib
import shutil
import tempfile

import griffe
import packnet_tf
import packnet_tf.export
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
INTRODUCTION = """# API

Every public name. `import packnet_tf` gives those of the first table, `from packnet_tf.export import
export_onnx` and so on those of the second. Names that are not listed here may change without notice.
"""
LIBRARY = [name for name in packnet_tf.__all__ if name != "__version__"]
NAMES = [
    *(f"packnet_tf.{name}" for name in LIBRARY),
    *(f"packnet_tf.export.{name}" for name in packnet_tf.export.__all__),
]
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
    pages = ["api/index.md", *({_title(name): _path(name)} for name in NAMES)]
    config.nav = [{"API": pages} if "API" in entry else entry for entry in config.nav]


def on_files(files, config):
    """Adds the pages."""
    package = griffe.load("packnet_tf", search_paths=[str(tree)], try_relative_path=False)
    content = f"{INTRODUCTION}\n`packnet_tf.__version__` is the version, a string.\n"
    for module in ("packnet_tf", "packnet_tf.export"):
        content += f"\n## {module}\n\n| name | |\n|---|---|\n"
        for name in NAMES:
            if name.rpartition(".")[0] == module:
                summary = package[name.partition(".")[2]].docstring.value.split("\n")[0]
                content += f"| [`{_title(name)}`]({_path(name).partition('/')[2]}) | {summary} |\n"
    files.append(File.generated(config, "api/index.md", content=content))
    for name in NAMES:
        content = f"---\ntitle: {_title(name)}\n---\n\n::: {name}\n"
        files.append(File.generated(config, _path(name), content=content))
    return files


def on_page_content(html, page, config, files):
    """Refuses a page on which mkdocstrings has left its name out."""
    for name in NAMES:
        if page.file.src_uri == _path(name) and f'id="{name}"' not in html:
            raise PluginError(f"The page of {name} has nothing about it: does it have a docstring?")


def on_shutdown():
    if tree is not None:
        shutil.rmtree(tree)


def _title(name: str) -> str:
    return name.rpartition(".")[2]


def _path(name: str) -> str:
    return f"api/{_title(name)}.md"
