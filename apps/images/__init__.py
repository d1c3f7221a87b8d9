"""Folders of images, decoding and augmentation, and trunks and heads for images."""
