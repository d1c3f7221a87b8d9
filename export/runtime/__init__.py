"""Running exported files and comparing their outputs with Keras."""
