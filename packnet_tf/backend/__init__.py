"""What Keras, TensorFlow and the file system need care with."""
