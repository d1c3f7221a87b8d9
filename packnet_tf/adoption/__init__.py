"""Adopts a pretrained trunk as the base of a pack."""
