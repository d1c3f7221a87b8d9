"""The Python of the README and of the pages runs as it stands, block after block of a page."""

import functools
import importlib.util
import re

import keras
import pytest

from helpers.examples import page_names
from helpers.pages import README, blocks, with_blocks
from helpers.pages import name as page_name

# Packages that packnet_tf does not depend on. A block that imports one runs where it is installed.
OTHERS = ("mlflow", "openvino", "wandb")


def other_packages(block):
    """The packages in `OTHERS` that a block imports."""
    found = re.findall(r"^import (.+?)(?:  #.*)?$", block.code, re.MULTILINE)
    return [name for names in found for name in names.split(", ") if name in OTHERS]


def test_three_blocks_need_packages_that_the_tests_do_not_install():
    pages = with_blocks("python")
    needed = [name for p in pages for b in blocks(p, "python") for name in other_packages(b)]
    assert sorted(needed) == sorted(OTHERS)


@pytest.mark.parametrize("page", with_blocks("python"), ids=page_name)
def test_every_block_is_python(page):
    for block in blocks(page, "python"):
        compile(block.code, str(block), "exec")


def run_page(page):
    """Runs the Python of a page; returns the names that it leaves."""
    space = page_names()
    for block in blocks(page, "python"):
        if all(importlib.util.find_spec(name) for name in other_packages(block)):
            exec(compile(block.code, str(block), "exec"), space)
    return space


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in with_blocks("python") if page != README], ids=page_name
)
def test_the_python_of_a_page_runs(page, place):
    run_page(page)


@pytest.mark.slow
def test_the_readmes_example_runs(place, monkeypatch):
    # Without a download, and with half as many layers to trace.
    smaller = functools.partial(keras.applications.MobileNet, alpha=0.25, weights=None)
    monkeypatch.setattr(keras.applications, "MobileNetV2", smaller)
    space = run_page(README)
    assert space["net"].tasks == ("base", "birds", "cars")
    assert sorted(path.name for path in (place / "onnx").iterdir()) == [
        "manifest.json",
        "model_task1.onnx",
        "model_task2.onnx",
        "model_task3.onnx",
    ]
    assert (place / "pack.keras").exists()
