"""Which weights a prune releases: pure functions on NumPy arrays."""

import math
import numbers

import numpy as np

_BLOCK = 1 << 18  # weights looked at in one go: temporaries stay in the processor's cache


def check_ratio(ratio: float, name: str = "prune_ratio") -> float:
    """Returns `ratio` as a float between 0 and 1.

    Raises:
        ValueError: it is not a number in that range.
    """
    value = float(ratio) if isinstance(ratio, numbers.Real) else math.nan
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name} is the fraction of the task's claim that pruning releases, a number from 0 "
            f"to 1; got {ratio!r}. Write {name}=0.75 to release three quarters."
        )
    return value


def released(weights: np.ndarray, claim: np.ndarray, ratio: float) -> np.ndarray:
    """Chooses the weights that pruning releases: the smallest magnitudes of the claim.

    Exactly `round(ratio * claimed)` weights are chosen (Python's `round`). Among equal magnitudes
    the ones that come first in C order go first, so the choice is deterministic.

    Args:
        weights: float array of any shape, the values of one packed weight.
        claim: bool array of that shape, the weights the current task is training.
        ratio: fraction of the claim to release, 0 to 1.

    Returns:
        A bool array of that shape, True where a weight is released; a subset of `claim`.

    Raises:
        ValueError: the ratio is out of range, or a claimed weight is NaN.

    Example:
        >>> released(np.array([3.0, -1.0, 2.0, 0.5]), np.ones(4, bool), 0.5)
        array([False,  True, False,  True])

    Source: Mallya & Lazebnik 2018, section 3 (per layer, by absolute magnitude).
    """
    ratio = check_ratio(ratio)
    claim = np.asarray(claim, bool)
    weights = np.asarray(weights)
    if weights.dtype.itemsize < 4:  # float16 and bfloat16: NumPy cannot partition every one
        weights = weights.astype(np.float32)

    magnitude = weights[claim]
    np.abs(magnitude, out=magnitude)
    if np.isnan(magnitude.max(initial=0)):
        raise ValueError(
            f"{np.isnan(magnitude).sum()} of {magnitude.size} claimed weights are NaN: training "
            "diverged, and magnitudes cannot rank them. Restore earlier weights or train again "
            "with a lower learning rate."
        )
    count = round(ratio * magnitude.size)
    if count == 0:
        return np.zeros(weights.shape, bool)
    if count == magnitude.size:
        return claim.copy()
    magnitude.partition(count - 1)  # in place: the layer may be most of the memory there is
    threshold = magnitude[count - 1]
    ties = count - np.count_nonzero(magnitude[:count] < threshold)
    del magnitude
    return _at_most(weights, claim, threshold, ties)


def _at_most(weights, claim, threshold, ties: int) -> np.ndarray:
    """Claimed weights of a magnitude below the threshold, and the first `ties` that equal it."""
    chosen = np.empty(weights.shape, bool)
    out, values, claimed = chosen.reshape(-1), weights.reshape(-1), claim.reshape(-1)
    for start in range(0, out.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        magnitude = np.abs(values[block])
        out[block] = (magnitude < threshold) & claimed[block]
        if ties:
            equal = np.flatnonzero((magnitude == threshold) & claimed[block])[:ties]
            out[start + equal] = True
            ties -= len(equal)
    return chosen


def count_by_owner(owner: np.ndarray, tasks: int) -> list[int]:
    """Counts the weights of every owner.

    Args:
        owner: uint8 array, per weight the 1-based number of its task, 0 = free.
        tasks: how many tasks there are.

    Returns:
        `tasks + 1` counts: free, owned by task 1, by task 2, ...

    Raises:
        ValueError: an owner is above `tasks`.
    """
    flat = np.asarray(owner).reshape(-1)
    counts = np.zeros(tasks + 1, np.int64)
    for start in range(0, flat.size, _BLOCK):
        block = np.bincount(flat[start : start + _BLOCK], minlength=tasks + 1)
        if block.size > tasks + 1:
            raise ValueError(f"owner {block.size - 1} is above the number of tasks, {tasks}")
        counts += block
    return counts.tolist()
