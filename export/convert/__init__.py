"""Converting a Keras model to an ONNX graph."""
