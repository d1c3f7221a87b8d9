"""Tells which task an image is for."""
