"""The folder that the pages start from."""

import shutil

import pytest

from helpers.examples import write_garden


@pytest.fixture(scope="session")
def garden(tmp_path_factory):
    """The folder of `write_garden`, to copy."""
    folder = tmp_path_factory.mktemp("pages") / "garden"
    folder.mkdir()
    write_garden(folder)
    return folder


@pytest.fixture
def place(garden, tmp_path, monkeypatch):
    """A copy of the garden as the current folder."""
    shutil.copytree(garden, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
