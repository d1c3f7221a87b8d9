"""The files of an export, compared with their manifest."""

import pytest

from helpers.pack_helpers import conv_trunk, packed
from packnet_tf.apps.device.exported_files import exported_files
from packnet_tf.apps.device.sessions import sessions_of
from packnet_tf.export import export_all


def test_a_single_file_is_compared_with_the_manifest_beside_it(tmp_path):
    export_all(packed(conv_trunk(), one=0.5, two=0.5), tmp_path, verbose=False)
    one, two = (tmp_path / f"model_task{number}.onnx" for number in (1, 2))
    assert exported_files(str(one)) == [str(one)]
    one.write_bytes(two.read_bytes())
    with pytest.raises(OSError, match=r"model_task1\.onnx': it has .* bytes|its checksum is not"):
        exported_files(str(one))
    assert exported_files(str(two)) == [str(two)]
    other = tmp_path / "other.onnx"
    other.write_bytes(one.read_bytes())
    assert exported_files(str(other)) == [str(other)]  # not of this export
    (tmp_path / "manifest.json").write_text('{"name": "of another program"}')
    assert exported_files(str(one)) == [str(one)]


def test_a_file_of_one_task_answers_for_no_other(tmp_path):
    export_all(packed(conv_trunk(), one=0.5, two=0.5), tmp_path, verbose=False)
    file = str(tmp_path / "model_task2.onnx")
    assert len(sessions_of(file)) == len(sessions_of(file, tasks=["two"])) == 1
    with pytest.raises(
        ValueError, match=r"model_task2\.onnx' is the file of task 'two', not of 'one'"
    ):
        sessions_of(file, tasks=["one"])
