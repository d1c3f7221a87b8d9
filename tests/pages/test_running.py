"""The commands of the pages run, one after the other, except for those that train or install."""

import shutil
import subprocess
import sys

import pytest

from helpers.pages import blocks, with_blocks
from helpers.pages import name as page_name
from helpers.shell import commands
from packnet_tf.apps.main import COMMANDS, main

LONG = {"compare", "demo", "train"}  # tests of their own run these


def runs_here(words):
    if words[0] == "packnet":
        return words[1] in COMMANDS.keys() - LONG
    return words[:2] == ["python", "-m"] and words[2].startswith("onnxruntime.")


def commands_to_run(page):
    return [
        words for block in blocks(page, "sh") for words in commands(block.code) if runs_here(words)
    ]


@pytest.fixture(scope="module")
def exported(garden, tmp_path_factory):
    """The files of the garden's pack for devices."""
    folder = tmp_path_factory.mktemp("exported")
    assert main(["export", f"{garden}/garden.keras", str(folder), "--for=edge"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in with_blocks("sh") if commands_to_run(page)], ids=page_name
)
def test_the_commands_of_a_page_run(page, exported, place, capsys):
    shutil.copytree(exported, place / "onnx")
    for program, *arguments in commands_to_run(page):
        if program == "packnet":
            status = main(arguments)
        else:
            status = subprocess.run([sys.executable, *arguments], check=False).returncode
        assert status == 0, f"{program} {' '.join(arguments)}\n{capsys.readouterr().err}"
