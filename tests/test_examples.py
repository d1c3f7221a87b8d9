"""Examples that need nothing beside them run as they stand."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_the_minimal_example_packs_two_tasks_without_the_library(tmp_path):
    code = (EXAMPLES / "minimal.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 80
    assert not re.search(r"^ *(import|from) packnet_tf", code, re.M)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "minimal.py"],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )  # the script asserts that task 1 is the same to the bit
    assert done.returncode == 0, done.stderr
    retrained = re.findall(r"^task (\d): \S+% after pruning \d+%, (\S+)%", done.stdout, re.M)
    assert [task for task, _ in retrained] == ["1", "2"]
    assert min(float(accuracy) for _, accuracy in retrained) > 95
    assert done.stdout.splitlines()[-1] == f"task 1: {retrained[0][1]}% after task 2, to the bit"
