"""ONNX graphs: going through them, building and changing them."""
