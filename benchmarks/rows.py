"""Rows of results that compare two sides, and timing of sides in turns, A B A B."""

import collections
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from packnet_tf.reporting.tables import count_bytes, text_table

Times = dict[str, list[float]]  # seconds of every turn, by side
HEAD = ["case", "what", "against", "", "", "ratio", "quartiles", "goal", ""]


@dataclasses.dataclass(frozen=True)
class Row:
    """The comparison of two sides.

    Attributes:
        what: name of our side.
        value: its value, in the unit.
        unit: "s", "bytes", or "" for a count.
        against: name of the other side.
        base: the other side's value.
        ratio: value / base; for times, the median of the ratios of all turns.
        low, high: quartiles of these ratios; None if nothing was timed.
        goal: largest ratio to reach; None for no goal.
        note: a remark for the last column.
    """

    what: str
    value: float
    unit: str
    against: str
    base: float
    ratio: float
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "reached", "within noise" (a quartile reaches the goal), "MISSED", or "" for no goal."""
        if self.goal is None:
            return ""
        if self.ratio <= self.goal:
            return "reached"
        return "within noise" if self.low is not None and self.low <= self.goal else "MISSED"


def in_turns(sides: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 1) -> Times:
    """Times each side once per turn, so that other load on the machine affects all sides.

    Each side is first called `warm_up` times without timing.
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
    """Returns the seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def timed(times: Times, what: str, against: str, goal: float | None = None, note: str = "") -> Row:
    """Returns the row of two sides that were timed in turns.

    Example:
        >>> timed({"plain": [1.0, 2.0], "packed": [1.1, 2.2]}, "packed", "plain").ratio
        1.1
    """
    ours, theirs = times[what], times[against]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    several = ratios * 2 if len(ratios) == 1 else ratios  # quantiles() takes two and more
    low, middle, high = statistics.quantiles(several, n=4, method="inclusive")
    value, base = statistics.median(ours), statistics.median(theirs)
    return Row(what, value, "s", against, base, middle, low, high, goal, note)


def counted(
    what: str, value: float, unit: str, against: str, base: float,
    goal: float | None = None, note: str = "",
) -> Row:  # fmt: skip
    """Returns the row of two numbers that are exact, such as bytes."""
    return Row(what, value, unit, against, base, value / base, goal=goal, note=note)


def rows_table(rows: Sequence[tuple[str, Row]]) -> str:
    """Lays out cases and their rows as text."""
    return text_table(HEAD, [_cells(case, row) for case, row in rows])


def summary(rows: Iterable[Row]) -> str:
    """Returns a line with the number of goals that are reached and missed."""
    count = collections.Counter(row.verdict for row in rows)
    return (
        f"{count.total()} comparisons; of their goals {count['reached']} reached, "
        f"{count['within noise']} within noise, {count['MISSED']} missed."
    )


def _cells(case: str, row: Row) -> list[str]:
    return [
        case,
        row.what,
        row.against,
        show(row.value, row.unit),
        show(row.base, row.unit),
        f"{row.ratio:.3f}",
        "" if row.low is None else f"{row.low:.3f} - {row.high:.3f}",
        "" if row.goal is None else f"{row.goal:g}",
        ", ".join(filter(None, [row.verdict, row.note])),
    ]


def show(value: float, unit: str) -> str:
    """Formats a number with its unit."""
    if unit == "bytes":
        return ("-" if value < 0 else "") + count_bytes(abs(round(value)))
    if unit == "s":
        return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:g}"
