"""What an attack may end in, and how the attacks are counted."""

import collections
import dataclasses
import os

WHOLE, REFUSED = "whole", "refused"
# Each of these must never happen.
DIFFERENT, LOST, ALIEN = "different answers", "lost tasks", "alien exceptions"
HANG, MEMORY, OUTSIDE = "hangs", "memory above bound", "files outside"
FAULTS = (DIFFERENT, LOST, ALIEN, HANG, MEMORY, OUTSIDE)

LONGEST = 1000  # characters of a message
REFUSALS = (ValueError, OSError, RuntimeError)
# Subclasses of these that no message of ours has.
INTERNAL = (RecursionError, NotImplementedError, UnicodeError)


class Fault(Exception):
    """Raised by an attack that has found a fault.

    Args:
        kind: one of `FAULTS`.
        text: what happened.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


def refused(error: BaseException, *names: os.PathLike | str) -> str:
    """Returns `REFUSED` if an exception is a sentence for the user.

    Args:
        error: what a verb or a reader has raised.
        names: of these, the message must have one; none: it may have any.

    Raises:
        Fault: the exception has another type, is too long, or names no file.
    """
    text = str(error)
    what = None
    if not isinstance(error, REFUSALS) or isinstance(error, INTERNAL):
        what = "has no type of a refusal"
    elif not text.strip():
        what = "has no message"
    elif len(text) > LONGEST:
        what = f"has {len(text)} characters"
    elif names and not any(os.path.basename(os.fspath(name)) in text for name in names):
        what = "names no file"
    if what is None:
        return REFUSED
    raise Fault(ALIEN, f"{type(error).__name__} {what}: {text[:300]}") from error


@dataclasses.dataclass
class Counts:
    """The results of one kind of attack.

    Attributes:
        ended: number of attacks by what they ended in.
        seconds: time that they took.
    """

    ended: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    seconds: float = 0.0

    def add(self, outcome: str, seconds: float) -> None:
        """Counts an attack."""
        self.ended[outcome] += 1
        self.seconds += seconds

    @property
    def tried(self) -> int:
        """Number of attacks."""
        return sum(self.ended.values())

    @property
    def faults(self) -> int:
        """Number of attacks that have found a fault."""
        return sum(self.ended[kind] for kind in FAULTS)


def table(counts: dict[str, Counts]) -> str:
    """Returns the results as a Markdown table, a line for each kind of attack."""
    head = ["attack", "tried", WHOLE, REFUSED, *FAULTS]
    rows = [
        [
            kind,
            *map(str, (c.tried, c.ended[WHOLE], c.ended[REFUSED], *(c.ended[f] for f in FAULTS))),
        ]
        for kind, c in counts.items()
    ]
    total = [sum(int(row[i]) for row in rows) for i in range(1, len(head))]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows, ["all", *map(str, total)]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
