"""Turns the results of runs into the report."""
