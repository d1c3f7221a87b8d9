"""The methods that are compared: packing, and the baselines."""
