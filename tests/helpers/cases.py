"""Parameters of tests: which of them are quick."""

import pytest


def slow(*cases):
    """Cases that only the slow tests run; those with several parameters are tuples."""
    cases = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


# (biases, norms, restart). Quick are the paper's and the one that differs from it in all three.
# With the slow ones and our default, which other tests use, every two values meet; tests.torture
# draws all of them.
POLICIES = [
    ("shared", "shared", "zero"),
    ("per_task", "per_task", "trunk"),
    *slow(("per_task", "shared", "trunk"), ("per_task", "per_task", "zero")),
]
