"""What we measure ourselves with, in a checkout: `python -m benchmarks` lists it."""
