"""Files of an export appear whole, or not at all."""

import os
import re

import numpy as np
import onnx
import pytest

from helpers.export_helpers import answer
from helpers.pack_helpers import mlp_trunk, packed, run_python
from packnet_tf.export import export_all, export_bundle, export_onnx, files, verify


@pytest.fixture(scope="module")
def net():
    return packed(mlp_trunk(), one=0.5, two=0.5)


def test_weights_too_large_for_one_file_lie_beside_it(net, tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(3, 12)).astype("float32")
    export_all(net, tmp_path / "one_file")
    monkeypatch.setattr(files, "EXTERNAL_ABOVE", 100)
    monkeypatch.setattr(files, "SMALL", 100)
    manifest = export_all(net, tmp_path / "two_files")
    one, two = (entry["file"] for task in manifest["tasks"] for entry in task["external"])
    assert re.fullmatch(r"model_task1\.onnx-[0-9a-f]{12}\.data", one)
    assert sorted(os.listdir(tmp_path / "two_files")) == [
        "manifest.json", "model_task1.onnx", one, "model_task2.onnx", two,
    ]  # fmt: skip
    for name in ("model_task1.onnx", "model_task2.onnx"):
        assert np.array_equal(
            answer(tmp_path / "two_files" / name, x), answer(tmp_path / "one_file" / name, x)
        )
        onnx.checker.check_model(str(tmp_path / "two_files" / name))
    assert [v.problems for v in verify(net, tmp_path / "two_files")] == [[], []]
    with pytest.raises(ValueError, match=r"take more than 2 GB, and the tools .* handle less"):
        export_all(net, tmp_path / "half", precision="float16")
    (tmp_path / "two_files" / one).unlink()
    [problem] = verify(net, tmp_path / "two_files")[0].problems
    assert problem == f"'{one}': it is missing"


def test_only_the_weights_of_the_same_file_are_leftovers(tmp_path):
    def weights(name):
        (tmp_path / name).write_text(name)
        return files.name_by_content(tmp_path / name).name

    mine, other = weights("birds.onnx.data"), weights("birds.onnx.onnx.data")
    foreign = "birds.onnx-0123456789ab.data"  # named after other contents
    (tmp_path / foreign).write_text("")
    files.remove_leftovers(tmp_path, "birds.onnx", kept=[mine])
    assert set(os.listdir(tmp_path)) == {mine, other, foreign}
    files.remove_leftovers(tmp_path, "birds.onnx", kept=[])
    assert set(os.listdir(tmp_path)) == {other, foreign}


def test_a_path_that_is_no_folder_is_named(net, tmp_path):
    (tmp_path / "file").write_text("x")
    for write in (export_all, export_bundle):
        with pytest.raises(OSError, match=r"^Cannot write to '.*onnx': Not a directory\. Name"):
            write(net, tmp_path / "file" / "onnx")
    with pytest.raises(OSError, match=r"Name another folder\. Nothing was left behind\.$"):
        export_onnx(net, "one", tmp_path / "file" / "m.onnx")
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_named_and_nothing_is_left(net, tmp_path):
    net.save(tmp_path / "pack.keras")
    run = run_python(
        f"""
        import resource, packnet_tf
        from packnet_tf.export import export_all, export_bundle
        net = packnet_tf.load({str(tmp_path / "pack.keras")!r})
        # Files end here, as on a disk that is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        for write in (export_all, export_bundle):
            try:
                write(net, {str(tmp_path / "made" / "onnx")!r})
            except OSError as error:
                print(error)
        """
    )
    text = (
        f"Cannot write to '{tmp_path / 'made' / 'onnx'}': File too large. Make room there, or "
        "name another folder. Nothing was left behind."
    )
    assert run.stdout.splitlines() == [text, text], run.stderr
    assert not (tmp_path / "made").exists()


def test_what_was_there_stays_when_a_later_write_fails(net, tmp_path):
    export_all(net, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="differs from Keras"):
        export_bundle(net, tmp_path, tolerance=-1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
