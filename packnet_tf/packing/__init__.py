"""Packed weights, and the layers and trunks that hold them."""
