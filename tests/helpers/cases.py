"""Parameters of tests: which of them are quick."""

import itertools

import pytest


def slow(*cases):
    """Cases that only the slow tests run."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


QUICK_POLICIES = [("shared", "shared", "zero"), ("per_task", "per_task", "trunk")]
# Every (biases, norms, restart). Quick are the paper's and the one that differs from it in all
# three; other tests use our default.
POLICIES = [
    pytest.param(*policy, marks=[] if policy in QUICK_POLICIES else pytest.mark.slow)
    for policy in itertools.product(
        ("shared", "per_task"), ("shared", "per_task"), ("zero", "trunk")
    )
]
