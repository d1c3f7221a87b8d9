"""`packnet compare`: runs packing and its baselines on the same tasks, and reports the results."""
