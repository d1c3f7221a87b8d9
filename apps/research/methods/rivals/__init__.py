"""Rivals of packing: methods that keep a shared trunk and add something small for each task."""
