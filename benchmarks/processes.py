"""Parts of a bench in processes of their own, so that memory is returned and nothing is warm."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable


def in_process(module: str, *arguments: str, say: Callable[[str], None] | None = None):
    """Runs `python -m module arguments`, and returns the JSON value that it prints.

    Args:
        module: whose main part prints an object or a list on a line; other lines are progress.
        arguments: of its command line.
        say: called with each line of progress.

    Raises:
        RuntimeError: it failed; with the last line that it wrote to stderr.
    """
    value = None
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+") as aside,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=aside, text=True) as process,
    ):
        for line in process.stdout:
            if line.startswith(("{", "[")):
                value = json.loads(line)
            elif say:
                say(line.rstrip())
        if process.wait():
            aside.seek(0)
            said = aside.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else f"ended with status {process.returncode}")
    return value
