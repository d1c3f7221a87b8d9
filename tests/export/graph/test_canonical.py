"""The same pack gives the same files."""

import hashlib
import os
import pathlib

import pytest

from helpers.cases import slow
from helpers.export_helpers import net_of
from helpers.pack_helpers import conv_trunk, packed, run_python
from packnet_tf.export import export_all, export_bundle

EXPORT = """
import hashlib, pathlib, sys
import packnet_tf
from packnet_tf.export import export_all, export_bundle
net = packnet_tf.load({pack!r})
export_all(net, {folder!r} + "/files")
export_all(net, {folder!r} + "/half", precision="float16", outputs="top_k", top_k=2)
export_bundle(net, {folder!r} + "/bundle")
"""


def sums(folder):
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@pytest.mark.slow
def test_in_another_process_too(tmp_path):
    packed(conv_trunk(), one=0.5, two=0.5).save(tmp_path / "pack.keras")
    here, there = (
        EXPORT.format(pack=str(tmp_path / "pack.keras"), folder=str(tmp_path / name))
        for name in ("here", "there")
    )
    exec(here, {})
    # Of another order of sets than this process.
    run = run_python(there, PYTHONHASHSEED="2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
    assert run.returncode == 0, run.stderr
    found = sums(tmp_path / "here")
    assert len(found) == 3 + 3 + 4
    assert found == sums(tmp_path / "there")


@pytest.mark.parametrize(
    "kind", [*slow("recurrent", "loop", "attention"), "embedding", *slow("two_inputs")]
)
def test_in_one_process_again(kind, tmp_path):
    net = net_of(kind)
    for folder in "ab":
        export_all(net, tmp_path / folder / "files")
        export_bundle(net, tmp_path / folder / "bundle")
    assert sums(tmp_path / "a") == sums(tmp_path / "b")
