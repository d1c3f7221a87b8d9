"""One ONNX graph for several tasks."""
