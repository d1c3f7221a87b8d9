"""Where the pages run."""

import functools
import shutil

import keras
import pytest

from helpers.examples import write_garden
from packnet_tf.apps.main import main


@pytest.fixture(scope="session")
def garden(tmp_path_factory):
    """The folder of `write_garden`, and its pack's files for devices, to copy."""
    folder = tmp_path_factory.mktemp("pages") / "garden"
    folder.mkdir()
    write_garden(folder)
    assert main(["export", f"{folder}/garden.keras", f"{folder}/onnx", "--for=edge"]) == 0
    return folder


@pytest.fixture
def place(garden, tmp_path, monkeypatch):
    """A copy of the garden as the current folder; no network is downloaded."""
    # The weights are random, and half as many layers are traced.
    smaller = functools.partial(keras.applications.MobileNet, alpha=0.25, weights=None)
    monkeypatch.setattr(keras.applications, "MobileNetV2", smaller)
    shutil.copytree(garden, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
