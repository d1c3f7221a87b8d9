"""Sessions that calculate with bytes exactly, on every CPU.

On x86 CPUs without VNNI, onnxruntime's sums of products of bytes saturate, so answers of int8
graphs are off by more than their rounding.
"""

import functools
import pathlib
import re

import onnx
import onnxruntime


@functools.cache
def _saturates() -> bool:
    """Whether this is such a CPU."""
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = re.search(r"^flags\s*:(.*)$", text, re.M)
    return flags is not None and "vnni" not in flags[1]


def session_of(model) -> onnxruntime.InferenceSession:
    """A session of a file, or of the bytes of a graph; of an `.ort` file, an ordinary one."""
    options = onnxruntime.SessionOptions()
    if _saturates() and (isinstance(model, bytes) or pathlib.Path(model).suffix == ".onnx"):
        _calculate_exactly(options, model)
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def _calculate_exactly(options, model):
    read = onnx.load_from_string if isinstance(model, bytes) else _without_weights
    kinds = {node.op_type for node in read(model).graph.node}
    if kinds & {"MatMulInteger", "ConvInteger"}:
        options.add_session_config_entry("session.x64quantprecision", "1")
    elif kinds & {"DequantizeLinear", "QuantizeLinear"}:
        # That entry replaces constants that are there; unfused, these calculate in float32.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def _without_weights(path):
    return onnx.load(path, load_external_data=False)
