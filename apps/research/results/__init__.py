"""From the results of runs to the report."""
