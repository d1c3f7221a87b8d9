"""Selects the weights that a prune releases: pure functions on NumPy arrays."""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping

import numpy as np

_FRACTIONS = {
    "prune_ratio": "the task's claim that pruning releases",
    "sparsity": "the task's initial claim that is released",
    "claim_ratio": "the free weights that the task claims",
    "step": "the claim that each round releases",
    "share": "all packed weights that the task trains",
    "overlay": "all packed weights that the task may override",
}
_USUAL = {"overlay": "0.05 for a twentieth"}
_BLOCK = 1 << 18  # weights per block: temporaries stay in the processor's cache


def check_ratio(ratio: float, name: str = "prune_ratio") -> float:
    """Checks that a ratio is between 0 and 1.

    Args:
        ratio: the user's value.
        name: the argument's name, a key of `_FRACTIONS`.

    Returns:
        The ratio as a float.

    Raises:
        ValueError: it is not a number from 0 to 1.
    """
    is_number = isinstance(ratio, numbers.Real) and not isinstance(ratio, bool)
    value = float(ratio) if is_number else math.nan
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name} is the fraction of {_FRACTIONS[name]}, a number from 0 to 1; got {ratio!r}. "
            f"Write {name}={_USUAL.get(name, '0.75 for three quarters')}."
        )
    return value


def check_ratios(ratio: float | Mapping[str, float], paths: Iterable[str]) -> dict[str, float]:
    """Expands a ratio, or a dict of ratios, to one ratio per packed weight.

    Args:
        ratio: the user's value: one ratio for all weights, or a dict by path.
        paths: the paths of the packed weights.

    Returns:
        A dict from path to ratio.

    Raises:
        ValueError: a ratio is out of range, or the dict has other paths.
    """
    paths = list(paths)
    if not isinstance(ratio, Mapping):
        return dict.fromkeys(paths, check_ratio(ratio))
    strange = sorted(set(paths) ^ set(ratio))
    if strange:
        raise ValueError(
            "A dict of ratios has exactly one ratio for each packed weight; "
            f"'{strange[0]}' is {'missing' if strange[0] in paths else 'no packed weight'}. Write "
            "dict.fromkeys(net.capacity(), 0.5), or packnet_tf.erk_ratios(net, 0.5)."
        )
    return {path: check_ratio(ratio[path]) for path in paths}


def magnitude(weights: np.ndarray, claim: np.ndarray, ratio: float) -> np.ndarray:
    """Selects the smallest magnitudes of the claim: the default pruning criterion.

    It selects exactly `round(ratio * claimed)` weights (Python's `round`). Of equal magnitudes,
    those that come first in C order are selected first, so the choice is deterministic.

    Args:
        weights: float array of any shape, the values of one packed weight.
        claim: bool array of that shape, True where the open task claims the weight.
        ratio: fraction of the claim to release, 0 to 1.

    Returns:
        A bool array of that shape, True where a weight is released; a subset of `claim`.

    Raises:
        ValueError: the ratio is out of range, or a claimed weight is NaN.

    Example:
        >>> magnitude(np.array([3.0, -1.0, 2.0, 0.5]), np.ones(4, bool), 0.5)
        array([False,  True, False,  True])

    Source: Mallya & Lazebnik 2018, section 3 (per layer, by absolute magnitude).
    """
    ratio = check_ratio(ratio)
    claim = np.asarray(claim, bool)
    weights = np.asarray(weights)
    if weights.dtype.itemsize < 4:  # float16 and bfloat16: NumPy cannot always partition them
        weights = weights.astype(np.float32)

    sizes = weights[claim]
    np.abs(sizes, out=sizes)
    if np.isnan(sizes.max(initial=0)):
        raise ValueError(
            f"{np.isnan(sizes).sum()} of {sizes.size} claimed weights are NaN: training "
            "diverged, and magnitudes cannot rank them. Restore earlier weights or train again "
            "with a lower learning rate."
        )
    count = round(ratio * sizes.size)
    if count == 0:
        return np.zeros(weights.shape, bool)
    if count == sizes.size:
        return claim.copy()
    sizes.partition(count - 1)  # in place, since this layer may take most of the memory
    threshold = sizes[count - 1]
    ties = count - np.count_nonzero(sizes[:count] < threshold)
    del sizes
    return _smallest(weights, claim, threshold, ties)


def check_released(
    chosen: np.ndarray, claim: np.ndarray, ratio: float, criterion: Callable
) -> np.ndarray:
    """Checks a criterion's choice and returns it.

    Args:
        chosen: what the criterion returned.
        claim: bool array, True where the open task claims the weight.
        ratio: fraction of the claim to release, 0 to 1.
        criterion: the criterion, for the error message.

    Raises:
        ValueError: the choice is not a bool array of the claim's shape, reaches beyond the claim,
            or does not have exactly `round(ratio * claimed)` weights.
    """
    name = getattr(criterion, "__name__", repr(criterion))
    chosen, claimed = np.asarray(chosen), int(np.count_nonzero(claim))
    wanted = round(ratio * claimed)
    if chosen.dtype != bool or chosen.shape != claim.shape:
        what = f"a {chosen.dtype} array of shape {chosen.shape}"
    elif np.any(chosen & ~claim):
        what = f"{np.count_nonzero(chosen & ~claim)} weights that the task does not claim"
    elif np.count_nonzero(chosen) != wanted:
        what = f"{np.count_nonzero(chosen)} weights"
    else:
        return chosen
    raise ValueError(
        f"the criterion '{name}' chose {what}; expected a bool array of shape {claim.shape} with "
        f"{wanted} of the {claimed} claimed weights, round(ratio * claimed). See "
        "packnet_tf.magnitude for one that does."
    )


def claimable(values: np.ndarray, free: np.ndarray, ratio: float) -> np.ndarray:
    """Selects the free weights that a task claims: those with the largest restart magnitudes.

    It selects exactly `round(ratio * free)` weights. If all restart values are equal (0, say), the
    weights are selected at random, with the same result for the same shape.

    Args:
        values: float array of any shape, the restart values.
        free: bool array of that shape, True where no task owns the weight.
        ratio: fraction of the free weights to claim, 0 to 1.

    Returns:
        A bool array of that shape, a subset of `free`.

    Raises:
        ValueError: the ratio is out of range.

    Example:
        >>> claimable(np.array([3.0, -1.0, 2.0, 0.5]), np.ones(4, bool), 0.5)
        array([ True, False,  True, False])
    """
    ratio = check_ratio(ratio, "claim_ratio")
    free = np.asarray(free, bool)
    count = np.count_nonzero(free)
    if count == 0:
        return free.copy()
    starts = np.asarray(values)[free]
    if np.all(starts == starts[0]):
        values = np.random.default_rng(0).random(free.shape)
    return free & ~magnitude(values, free, (count - round(ratio * count)) / count)


def _smallest(
    weights: np.ndarray, claim: np.ndarray, threshold: np.floating, ties: int
) -> np.ndarray:
    """Selects claimed weights below the threshold, and the first `ties` equal to it."""
    chosen = np.empty(weights.shape, bool)
    out, values, claimed = chosen.reshape(-1), weights.reshape(-1), claim.reshape(-1)
    for start in range(0, out.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        sizes = np.abs(values[block])
        out[block] = (sizes < threshold) & claimed[block]
        if ties:
            equal = np.flatnonzero((sizes == threshold) & claimed[block])[:ties]
            out[start + equal] = True
            ties -= len(equal)
    return chosen


def count_by_owner(owner: np.ndarray, tasks: int) -> list[int]:
    """Counts the weights of every owner.

    Args:
        owner: integer array of any shape, the 1-based number of each weight's task, 0 = free.
        tasks: number of tasks.

    Returns:
        `tasks + 1` counts: free, owned by task 1, by task 2, ...

    Raises:
        ValueError: an owner is above `tasks` or below 0.
    """
    owner = np.asarray(owner)
    lowest, highest = owner.min(initial=0), owner.max(initial=0)
    if highest > tasks:
        raise ValueError(f"owner {highest} is above the number of tasks, {tasks}")
    if lowest < 0:
        raise ValueError(f"owner {lowest} is below 0, which is a free weight")
    flat = np.ascontiguousarray(owner, np.uint8).reshape(-1)
    count = _count_by_comparing if tasks < 8 else _count_by_pairs
    blocks = (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
    return sum((count(block, tasks) for block in blocks), np.zeros(tasks + 1, np.int64)).tolist()


def _count_by_comparing(numbers: np.ndarray, highest: int) -> np.ndarray:
    """Counts each number from 0 to `highest` by comparison: fastest for few different numbers."""
    return np.array([np.count_nonzero(numbers == number) for number in range(highest + 1)])


def _count_by_pairs(numbers: np.ndarray, highest: int) -> np.ndarray:
    """Counts numbers from 0 two at a time, if there are at least as many as possible pairs."""
    if numbers.size < 1 << 16:
        return np.bincount(numbers, minlength=highest + 1)
    even = numbers[: numbers.size // 2 * 2].view(np.uint16)
    pairs = np.bincount(even, minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)
    counts[numbers[even.size * 2 :]] += 1
    return counts[: highest + 1]
