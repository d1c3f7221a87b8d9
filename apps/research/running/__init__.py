"""Executes the runs of a comparison, each in its own process."""
