"""An export says what it writes, a line a file, and nothing else reaches the terminal."""

import json
import logging
import os
import sys

import pytest

from helpers.pack_helpers import mlp_trunk, packed, run_python
from packnet_tf.export import export_all, export_bundle, export_onnx
from packnet_tf.export.convert.quiet import quiet_tools
from packnet_tf.export.exported import Exported


def test_an_export_prints_a_line_a_file(tmp_path, capfd):
    net = packed(mlp_trunk(), one=0.5, two=0.5)
    capfd.readouterr()
    exported = export_all(net, tmp_path / "all")
    said = capfd.readouterr()
    assert said.err == ""
    starts = ["model_task1.onnx: task 'one', ", "model_task2.onnx: task 'two', "]
    assert [line[:30] for line in said.out.splitlines()] == starts
    assert json.loads((tmp_path / "all" / "manifest.json").read_text()) == exported
    assert str(exported).splitlines()[2].split()[:2] == ["model_task1.onnx", "one"]

    bundle = export_bundle(net, tmp_path / "bundle", optimized=True)
    lines = capfd.readouterr().out.splitlines()
    assert {line.partition(":")[0] for line in lines} == {*bundle["changed"]} - {"manifest.json"}
    assert len(lines) == 5

    export_onnx(net, "one", tmp_path / "one.onnx")
    assert capfd.readouterr().out.startswith("one.onnx: task 'one', ")
    export_onnx(net, "one", tmp_path / "one.onnx", verbose=False)
    export_all(net, tmp_path / "all", verbose=False)
    export_bundle(net, tmp_path / "bundle", verbose=False)
    assert capfd.readouterr() == ("", "")


def test_only_notices_of_the_tools_are_dropped(capfd):
    tools = logging.getLogger("tf2onnx")
    levels = [logging.getLogger(name).level for name in ("tensorflow", "tf2onnx")]
    notice = b"I0000 00:00:1795824567.109366    8589 devices.cc:67] Number of eligible GPUs: 0\n"
    error = b"E0000 00:00:1795824567.109366    8589 cuda.cc:52] failed\n"

    def convert():
        with quiet_tools():
            os.write(2, notice + error)
            tools.warning("a detail of the converter")
            print("of the user", file=sys.stderr)
            raise RuntimeError("stops")

    with pytest.raises(RuntimeError, match="stops"):
        convert()
    said = capfd.readouterr().err
    assert "failed" in said
    assert "of the user" in said
    assert "eligible" not in said
    assert "converter" not in said
    assert [logging.getLogger(name).level for name in ("tensorflow", "tf2onnx")] == levels


def test_a_process_without_stderr_exports_too():
    done = run_python(
        """
        import os
        os.close(2)
        from packnet_tf.export.convert.quiet import quiet_tools
        with quiet_tools():
            pass
        print("done")
        """
    )
    assert done.stdout == "done\n"


@pytest.mark.slow
def test_a_new_process_prints_nothing_else(tmp_path):
    """Notices that TensorFlow gives once a process are dropped too."""
    code = """
        import sys
        import numpy as np
        from helpers.pack_helpers import conv_trunk, packed
        from packnet_tf.export import export_all, export_bundle
        net = packed(conv_trunk(), one=0.5)
        print("begin", file=sys.stderr, flush=True)
        images = np.zeros((4, 6, 6, 1), "float32")
        for options in ({}, {"precision": "float16"}, {"precision": "int8", "calibration": images}):
            export_all(net, sys.argv[1], **options)
        export_bundle(net, sys.argv[1], optimized=True)
        """
    done = run_python(code, tmp_path, TF_CPP_MIN_LOG_LEVEL="0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.partition("begin\n")[2] == ""
    assert len(done.stdout.splitlines()) == 6


def test_a_precision_that_costs_accuracy_is_warned_of():
    def task(name, accuracy, in_keras, precision="int8"):
        found = {"accuracy": accuracy, "keras_accuracy": in_keras, "agreement": 0.9, "images": 200}
        return {
            "file": f"{name}.onnx", "task": name, "bytes": 10, "precision": precision,
            "relative_difference": 0.01, "evaluated": found, "calibrated": True,
        }  # fmt: skip

    tasks = [task("a", 0.865, 0.905), task("b", 0.9, 0.905), task("c", 0.5, 0.9, "float16")]
    del tasks[1]["evaluated"]["keras_accuracy"]  # of an older manifest
    exported = Exported({"tasks": tasks})
    assert exported.warnings == [
        "WARNING: task 'a' in int8 gets 86.5% of 200 images right, and 90.5% in Keras. Export it "
        "as float16 or float32, or calibrate with more images.",
        "WARNING: task 'c' in float16 gets 50.0% of 200 images right, and 90.0% in Keras. Export "
        "it as float32.",
    ]
    assert all(sentence in str(exported) for sentence in exported.warnings)


def test_outputs_far_from_keras_are_a_warning():
    task = {"task": "one", "relative_difference": 0.6, "precision": "int8", "calibrated": False}
    [sentence] = Exported({"tasks": [task]}).warnings
    assert "'one' in int8 differs from Keras by 60.0% of its largest output, more than" in sentence
    assert sentence.endswith("Export it as float16 or float32, or calibrate it.")
    assert Exported({"tasks": [task | {"relative_difference": 0.5}]}).warnings == []
    assert Exported({"tasks": [task | {"precision": "float16"}]}).warnings != []
