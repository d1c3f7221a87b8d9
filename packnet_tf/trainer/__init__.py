"""Packs a list of tasks unattended, with a training loop of its own; needs TensorFlow."""
