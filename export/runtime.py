"""onnxruntime, quiet and on the CPU. Imports neither Keras nor TensorFlow: devices have neither."""

import os


def session(path):
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
