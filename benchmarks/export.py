"""`packnet bench export`: `export_onnx` beside tf2onnx on the unpacked model."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator

from benchmarks.cases import wanted
from benchmarks.rows import Row, timed
from benchmarks.trunks import build_trunk, packed
from benchmarks.turns import in_turns

CASES = (("TinyDarknet", 96), ("MobileNetV2", 96), ("ResNet50", 64), ("VGG16", 64))


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times a whole export, and what it takes besides the comparison with Keras."""
    for name, pixels in wanted(CASES, lambda case: case[0], only, say):
        yield from measure(name, pixels, turns)


def measure(name: str, pixels: int, turns: int) -> Iterator[Row]:
    """The rows of a network."""
    from packnet_tf.export import export_onnx
    from packnet_tf.export.files import save
    from packnet_tf.export.options import ExportOptions
    from packnet_tf.export.task_graph import TaskGraph

    net = packed(build_trunk(name, pixels), 2)
    plain = net.unpack("task2")

    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pathlib.Path(folder) / "ours.onnx", pathlib.Path(folder) / "theirs.onnx"

        def unchecked():
            graph = TaskGraph(net, "task2", ExportOptions())
            save(graph.dress(graph.converted.bake()), ours)

        sides = {
            "export_onnx without its check": unchecked,
            "export_onnx": lambda: export_onnx(net, "task2", ours),
            "tf2onnx": lambda: by_tf2onnx(plain, theirs),
        }
        times = in_turns(sides, turns)
    yield timed(name, times, "export_onnx without its check", "tf2onnx", 1.2)
    yield timed(name, times, "export_onnx", "tf2onnx")


def by_tf2onnx(model, path) -> None:
    """Exports a plain model as tf2onnx's documentation says."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(model.input_shape, tf.float32, name="image")]
    call = tf.function(lambda image: model(image, training=False))
    tf2onnx.convert.from_function(call, signature, opset=17, output_path=str(path))
