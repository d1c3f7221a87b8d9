"""`export_all`: the files of a folder and its manifest, as tasks and names change."""

import json

import numpy as np
import pytest

from helpers.export_helpers import files
from helpers.pack_helpers import break_task, conv_trunk, packed
from packnet_tf.export import export_all, export_bundle, verify


@pytest.fixture
def net():
    return packed(conv_trunk(), birds=0.5, cars=0.5, flowers=0)


def test_export_all_writes_one_file_per_task_and_a_manifest(net, tmp_path):
    seen = []
    manifest = export_all(net, tmp_path / "onnx", progress=seen.append)
    names = ["model_task1.onnx", "model_task2.onnx", "model_task3.onnx"]
    assert sorted(p.name for p in (tmp_path / "onnx").iterdir()) == ["manifest.json", *names]
    assert json.loads((tmp_path / "onnx" / "manifest.json").read_text()) == manifest
    assert seen == list(net.tasks)
    assert [task["file"] for task in manifest["tasks"]] == names
    first = manifest["tasks"][0]
    assert first["task"] == "birds"
    assert first["bytes"] == (tmp_path / "onnx" / names[0]).stat().st_size
    assert 0 <= first["relative_difference"] < 1e-5
    assert first["inputs"] == [{"name": "image", "shape": [None, 6, 6, 1], "dtype": "float32"}]


def test_exporting_one_task_again_keeps_the_others_in_the_manifest(net, tmp_path):
    before = export_all(net, tmp_path)
    after = export_all(net, tmp_path, tasks=["cars"])
    assert [task["task"] for task in after["tasks"]] == ["birds", "cars", "flowers"]
    assert after["tasks"][0] == before["tasks"][0]


def test_files_are_named_by_their_task_on_request(net, tmp_path):
    manifest = export_all(net, tmp_path / "onnx", names="task")
    names = ["birds.onnx", "cars.onnx", "flowers.onnx"]
    assert [task["file"] for task in manifest["tasks"]] == names
    assert [verdict.problems for verdict in verify(net, tmp_path / "onnx")] == [[], [], []]
    bundle = export_bundle(net, tmp_path / "bundle", names="task")
    assert [task["file"] for task in bundle["tasks"]] == names
    message = "names='class' is not known to the export; write names="
    with pytest.raises(ValueError, match=message):
        export_all(net, tmp_path / "onnx", names="class")
    with pytest.raises(ValueError, match=message):  # also where no task is new
        export_bundle(net, tmp_path, update_from=tmp_path / "bundle", names="class")


def test_a_task_exported_under_another_name_replaces_its_file(net, tmp_path):
    export_all(net, tmp_path)
    manifest = export_all(net, tmp_path, tasks=["cars"], names="task")
    names = ["model_task1.onnx", "cars.onnx", "model_task3.onnx"]
    assert [task["file"] for task in manifest["tasks"]] == names
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *names}


def test_when_one_task_fails_the_folder_is_as_it_was(net, tmp_path):
    before = export_all(net, tmp_path)
    contents = files(tmp_path)
    with pytest.raises(ValueError, match="answers NaN or infinite numbers"):
        export_all(net, tmp_path, tasks=["birds", "cars"], progress=Spoil(net, "cars"))
    assert files(tmp_path) == contents
    assert json.loads((tmp_path / "manifest.json").read_text()) == before


class Spoil:
    """Breaks a task just before it is exported."""

    def __init__(self, net, task):
        self.net, self.task = net, task

    def __call__(self, name):
        if name == self.task:
            break_task(self.net, 1, np.inf)


def test_files_of_tasks_that_are_gone_are_removed(net, tmp_path):
    export_all(net, tmp_path)
    export_all(packed(conv_trunk(), other=0.5), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "model_task1.onnx"]


def test_a_damaged_manifest_is_named(net, tmp_path):
    (tmp_path / "manifest.json").write_text("[1, 2")
    with pytest.raises(ValueError, match="is not a manifest of exported tasks"):
        export_all(net, tmp_path)
