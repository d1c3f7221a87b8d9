"""Exports whose tasks share one file of weights."""
