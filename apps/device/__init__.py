"""Code for devices: it runs without Keras and TensorFlow."""
