"""onnxruntime, quiet and on the CPU. Imports neither Keras nor TensorFlow: devices have neither."""

import os
from typing import TYPE_CHECKING

from packnet_tf.backend.types import AnyPath

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def optimize(path: AnyPath, target: AnyPath) -> None:
    """Writes a model as ONNX Runtime has optimized it, in its own format (`.ort`).

    The optimizations are those that hold for every CPU.

    Args:
        path: a `.onnx` file.
        target: the `.ort` file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = os.fspath(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def session(path: AnyPath) -> "InferenceSession":
    """An onnxruntime session of a model file.

    Args:
        path: a `.onnx` file.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
