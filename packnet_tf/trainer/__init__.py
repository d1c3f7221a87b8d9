"""Packs a list of tasks in its own training loop and resumes interrupted runs; needs TensorFlow."""
