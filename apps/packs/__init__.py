"""Packs of tasks on folders of images."""
