"""Adapters to Keras, TensorFlow and the file system."""
