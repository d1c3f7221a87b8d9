"""Parameters of tests: which of them are quick."""

import itertools

import pytest


def slow(*cases):
    """Cases that only the slow tests run; those with several parameters are tuples."""
    cases = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


# Every (biases, norms, restart). Quick are the paper's and the one that differs from it in all
# three; other tests use our default.
_QUICK = [("shared", "shared", "zero"), ("per_task", "per_task", "trunk")]
_ALL = itertools.product(("shared", "per_task"), ("shared", "per_task"), ("zero", "trunk"))
POLICIES = [*_QUICK, *slow(*sorted({*_ALL} - {*_QUICK}))]
