"""What a bench found: rows that compare one number with another, and the table of them."""

import dataclasses
import statistics
from collections.abc import Sequence

from benchmarks.turns import Times, quartiles
from packnet_tf.reporting.tables import count_bytes, text_table

HEAD = ["case", "what", "against", "", "", "ratio", "quartiles", "goal", ""]


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        case: what was measured: a network, a batch size.
        what: the side of the comparison that is ours.
        value: of it, in the unit.
        unit: "s", "bytes", or "" for a count.
        against: the other side; None where there is none.
        base: its value.
        ratio: of value and base. Of times it is the median of the ratios of all turns.
        low, high: the quartiles of these ratios.
        goal: what the ratio shall not exceed, or the value, where there is no base.
        note: what else there is to say.
    """

    case: str
    what: str
    value: float
    unit: str
    against: str | None = None
    base: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Of the goal: "reached", "within noise" where the quartiles reach it, "MISSED" or ""."""
        if self.goal is None:
            return ""
        if (self.value if self.ratio is None else self.ratio) <= self.goal:
            return "reached"
        return "within noise" if self.low is not None and self.low <= self.goal else "MISSED"


def timed(
    case: str, times: Times, what: str, against: str | None, goal: float | None = None, **others
) -> Row:
    """The row of two sides that were timed in turns, or of one.

    Example:
        >>> timed("step", {"plain": [1.0, 2.0], "packed": [1.1, 2.2]}, "packed", "plain").ratio
        1.1
    """
    ours = statistics.median(times[what])
    if against is None:
        return Row(case, what, ours, "s", goal=goal, **others)
    ratios = [a / b for a, b in zip(times[what], times[against], strict=True)]
    low, middle, high = quartiles(ratios)
    base = statistics.median(times[against])
    return Row(case, what, ours, "s", against, base, middle, low, high, goal, **others)


def counted(
    case: str, what: str, value: float, unit: str, against: str, base: float,
    goal: float | None = None, note: str = "",
) -> Row:  # fmt: skip
    """The row of two numbers that are what they are: bytes, say."""
    return Row(case, what, value, unit, against, base, value / base, goal=goal, note=note)


def rows_table(rows: Sequence[Row]) -> str:
    """Lays out rows as text."""
    return text_table(HEAD, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    spread = "" if row.low is None else f"{row.low:.3f} - {row.high:.3f}"
    goal = "" if row.goal is None else f"{row.goal:g}" + (row.unit if row.ratio is None else "")
    return [
        row.case,
        row.what,
        row.against or "",
        show(row.value, row.unit),
        "" if row.base is None else show(row.base, row.unit),
        "" if row.ratio is None else f"{row.ratio:.3f}",
        spread,
        goal,
        ", ".join(filter(None, [row.verdict, row.note])),
    ]


def show(value: float, unit: str) -> str:
    """A number with its unit, as people write it."""
    if unit == "bytes":
        return ("-" if value < 0 else "") + count_bytes(abs(round(value)))
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    return f"{value:g}"
