"""Time of `export_onnx`, including its check, against tf2onnx on the unpacked model."""

import pathlib
import tempfile
from functools import partial

from benchmarks.command import in_process, run
from benchmarks.networks import build_trunk, packed, sized
from benchmarks.rows import Row, in_turns, timed

CASES = sized(TinyDarknet=96, MobileNetV2=96, ResNet50=64)


def measure(case: tuple[str, int], turns: int) -> list[Row]:
    """Measures a network."""
    from packnet_tf.export import export_onnx

    net = packed(build_trunk(*case), 2)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pathlib.Path(folder) / "ours.onnx", pathlib.Path(folder) / "theirs.onnx"
        sides = {
            "export_onnx": partial(export_onnx, net, "task2", ours),
            "tf2onnx": partial(by_tf2onnx, net.unpack("task2"), theirs),
        }
        return [timed(in_turns(sides, turns), "export_onnx", "tf2onnx")]


def by_tf2onnx(model, path) -> None:
    """Exports a plain model as in tf2onnx's documentation."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(model.input_shape, tf.float32, name="image")]
    call = tf.function(lambda image: model(image, training=False))
    tf2onnx.convert.from_function(call, signature, opset=17, output_path=str(path))


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=7)
