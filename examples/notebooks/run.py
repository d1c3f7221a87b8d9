"""Runs notebooks, by default all of this folder, and writes their outputs into them.

  python examples/notebooks/run.py [NOTEBOOK ...]

Needs nbclient and ipykernel, `pip install -e '.[tests]'`. Run it after a change of a notebook, and
look at the outputs before you commit them.
"""

import pathlib
import re
import sys
import tempfile

import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent
# What TensorFlow prints when it starts: the time, the process, the processor.
START_UP = re.compile(r"(WARNING: All log messages before absl|[IWE]\d{4} \d\d:|[IWE]\d{10}\.)")


def executed(path: pathlib.Path) -> nbformat.NotebookNode:
    """Runs a notebook in an empty folder; returns it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _merged(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}  # without the version of this Python
    return notebook


def _merged(outputs: list) -> list:
    """Outputs with the pieces of a stream as one, and without TensorFlow's start-up messages."""
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            lines = output.text.splitlines(keepends=True)
            output.text = "".join(line for line in lines if not START_UP.match(line))
            if not output.text.strip():
                continue
            if kept and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
                continue
        kept.append(output)
    return kept


def main() -> None:
    for path in map(pathlib.Path, sys.argv[1:] or sorted(HERE.glob("*.ipynb"))):
        print(path.name, flush=True)
        nbformat.write(executed(path), path)


if __name__ == "__main__":
    main()
