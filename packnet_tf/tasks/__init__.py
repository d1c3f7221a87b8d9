"""The tasks of a pack: their state, their models, their file."""
