"""Timing several ways of doing a thing in turns, A B A B: what else runs meets all alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Times = dict[str, list[float]]  # seconds of every turn, by side


def in_turns(sides: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 1) -> Times:
    """Times each side once in every turn.

    Args:
        sides: what to call, by name.
        turns: how often.
        warm_up: calls of each side before that, which are not counted.

    Returns:
        Seconds of every turn, by side.
    """
    for _ in range(warm_up):
        for call in sides.values():
            call()
    times = {side: [] for side in sides}
    gc.collect()
    for _ in range(turns):
        for side, call in sides.items():
            times[side].append(seconds_of(call))
    return times


def seconds_of(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The first quartile, the median and the third quartile.

    Example:
        >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
        (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
