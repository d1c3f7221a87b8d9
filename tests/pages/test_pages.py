"""The README and the pages run as they stand, block after block of a page.

Commands that train or install are left out; `test_commands.py` checks those without running them.
"""

import importlib.util
import re
import subprocess
import sys

import pytest

from helpers.examples import page_names
from helpers.pages import PAGES, README, blocks, with_blocks
from helpers.pages import name as page_name
from helpers.shell import commands
from packnet_tf.apps.main import COMMANDS, main

# Packages that packnet_tf does not depend on. A block that imports one runs where it is installed.
OTHERS = ("mlflow", "openvino", "wandb")
LONG = {"compare", "demo", "train"}  # tests of their own run these commands
# Tells of tasks of its own; tests/apps/test_twelve_lines.py runs its commands.
START = "index"


def other_packages(block):
    """The packages in `OTHERS` that a block imports."""
    found = re.findall(r"^import (.+?)(?:  #.*)?$", block.code, re.MULTILINE)
    return [name for names in found for name in names.split(", ") if name in OTHERS]


def runs_here(words):
    """Whether a command can run: one of ours that is not long, or one of onnxruntime's."""
    if words[0] == "packnet":
        return words[1] in COMMANDS.keys() - LONG
    return words[:2] == ["python", "-m"] and words[2].startswith("onnxruntime.")


def to_run(page):
    """The blocks of Python of a page, and its commands, in their order."""
    for block in blocks(page, "python", "sh"):
        if block.language == "sh":
            yield from (words for words in commands(block.code) if runs_here(words))
        elif all(importlib.util.find_spec(name) for name in other_packages(block)):
            yield block


def run_page(page):
    """Runs a page; returns the names that its Python leaves."""
    space = page_names()
    for step in to_run(page):
        if not isinstance(step, list):
            exec(compile(step.code, str(step), "exec"), space)
        elif step[0] == "packnet":
            assert main(step[1:]) == 0, " ".join(step)
        else:
            subprocess.run([sys.executable, *step[1:]], check=True)
    return space


def test_three_blocks_need_packages_that_the_tests_do_not_install():
    pages = with_blocks("python")
    needed = [name for p in pages for b in blocks(p, "python") for name in other_packages(b)]
    assert sorted(needed) == sorted(OTHERS)


@pytest.mark.parametrize("page", with_blocks("python"), ids=page_name)
def test_every_block_is_python(page):
    for block in blocks(page, "python"):
        compile(block.code, str(block), "exec")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p != README and page_name(p) != START and any(to_run(p))],
    ids=page_name,
)
def test_a_page_runs(page, place):
    run_page(page)


@pytest.mark.slow
def test_the_readme_runs(place):
    space = run_page(README)
    assert space["net"].tasks == ("base", "birds", "cars")
    assert (place / "pack.keras").exists()
    assert sorted(path.name for path in (place / "onnx").iterdir()) == [
        "manifest.json",
        "model_task1.onnx",
        "model_task2.onnx",
        "model_task3.onnx",
        "router.onnx",
    ]
