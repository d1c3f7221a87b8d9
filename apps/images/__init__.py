"""Folders of images, their pixels, and the networks that take them."""
