"""Packing and its baselines on the same tasks: what `packnet compare` runs, measures and draws."""
