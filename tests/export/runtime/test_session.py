"""Sessions of onnxruntime, and of which package they are."""

import warnings

import pytest

from helpers.onnx_files import write_model
from packnet_tf.export.runtime import session as sessions


def install(folder, name, version):
    """Writes what pip notes of an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def fresh():
    """The warning has not been given."""
    sessions._warn_of_two_packages.cache_clear()
    yield
    sessions._warn_of_two_packages.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_two_packages_of_onnxruntime_are_warned_of_once(tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime-gpu"):  # in front of the one that is installed
        install(tmp_path, name, "1.2.3")
    monkeypatch.syspath_prepend(tmp_path)
    model = write_model(tmp_path / "m.onnx")
    with pytest.warns(UserWarning, match="onnxruntime 1.2.3 and onnxruntime-gpu 1.2.3") as warned:
        [sessions.session(model) for _ in range(2)]
    assert len(warned) == 1
    assert "pip uninstall onnxruntime onnxruntime-gpu" in str(warned[0].message)
    assert warned[0].filename == __file__


@pytest.mark.usefixtures("fresh")
def test_one_package_of_onnxruntime_is_not_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sessions.session(write_model(tmp_path / "m.onnx"))
