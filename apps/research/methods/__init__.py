"""The methods to compare: packing and the baselines."""
