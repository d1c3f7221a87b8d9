"""Routers on the device: what `packnet predict --router` opens."""

import onnx
import pytest

from helpers.onnx_files import write_model
from packnet_tf.apps.device.router import Router


@pytest.mark.parametrize("numbers", ["no JSON", "[1, 2]", '{"cat": "1"}', '{"cat": true}'])
def test_damaged_metadata_names_the_file(numbers, tmp_path):
    path = write_model(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"router": numbers})
    onnx.save(proto, path)
    with pytest.raises(ValueError, match=r"m\.onnx' has damaged metadata: its tasks have no num"):
        Router(path)


def test_a_file_of_a_task_is_no_router(tmp_path):
    path = write_model(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"m\.onnx' is not a router\. Write one with packnet"):
        Router(path)
