"""Bytes of int8 bundles of four and ten tasks, against the float32 kernels of one network.

Heads and norms are apart: what counts are the shared file, and the integers of small kernels that
each graph of a calibrated bundle has for itself.
"""

import pathlib
import tempfile
from functools import partial

import numpy as np

from benchmarks.command import in_process, run
from benchmarks.networks import build_trunk, packed
from benchmarks.rows import Row, counted

PIXELS = 96
GOALS = {4: 0.33, 10: 0.40}  # by number of tasks
CASES = {
    f"{name}, {tasks} tasks": (name, tasks)
    for name in ("MobileNetV2", "TinyDarknet")
    for tasks in GOALS
}


def measure(case: tuple[str, int], turns: int) -> list[Row]:
    """Measures a network; sizes need no turns."""
    from packnet_tf.export import export_bundle

    name, tasks = case
    net = packed(build_trunk(name, PIXELS), tasks)
    images = np.random.default_rng(0).random((8, PIXELS, PIXELS, 3), np.float32)
    kernels, rows = 4 * net.capacity().sum()["total"], []
    for form, options in {"weights only": {}, "calibrated": {"calibration": images}}.items():
        with tempfile.TemporaryDirectory() as folder:
            where = pathlib.Path(folder)
            bundle = export_bundle(net, where, precision="int8", verbose=False, **options)
            stored = sum(file["bytes"] for file in bundle["shared"])
            stored += sum(_own_integers(where / task["file"]) for task in bundle["tasks"])
        rows.append(
            counted(f"{form}, {tasks} tasks", stored, "bytes", "kernels", kernels, GOALS[tasks])
        )
    return rows


def _own_integers(path: pathlib.Path) -> int:
    """Returns the bytes of the int8 kernels that a graph holds itself; matrices are heads here."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return sum(
        int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
        and len(tensor.dims) > 2
        and tensor.data_location != onnx.TensorProto.EXTERNAL
    )


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=1)
