"""Benchmarks of packnet_tf, run from a checkout: `python -m benchmarks` lists them."""
