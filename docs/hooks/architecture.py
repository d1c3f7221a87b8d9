"""Shows ARCHITECTURE.md, which lies beside the code, as a page."""

import pathlib

from mkdocs.structure.files import File

SOURCE = pathlib.Path(__file__).parents[2] / "ARCHITECTURE.md"


def on_files(files, config):
    """Adds the page."""
    content = SOURCE.read_text(encoding="utf-8")
    files.append(File.generated(config, "how_it_works/architecture.md", content=content))
    return files
