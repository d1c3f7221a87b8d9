"""onnxruntime sessions on the CPU. Devices have no Keras and no TensorFlow: import neither."""

import os
from typing import TYPE_CHECKING

from packnet_tf.backend.types import AnyPath

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def optimize(path: AnyPath, target: AnyPath) -> None:
    """Optimizes a model, and writes it in ONNX Runtime's own format (`.ort`).

    Only optimizations that are valid on every CPU are applied.

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
    """Opens a model file in onnxruntime.

    Args:
        path: a `.onnx` or `.ort` file.

    Returns:
        An `onnxruntime.InferenceSession`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
