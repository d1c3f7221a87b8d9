"""What runs where there is no Keras."""
