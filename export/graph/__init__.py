"""Traversing, building and changing ONNX graphs."""
