"""How far a long run is, on one line of a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence

PATIENCE = 2.0  # seconds before anything is shown: short runs stay quiet


def counted(items: Sequence, of: str, shown: bool | None = None) -> Iterator:
    """Yields the items; what takes long is counted on stderr, where that is a terminal.

    Args:
        items: what to go through.
        of: what they are, "images" for instance.
        shown: whether to count; default where stderr is a terminal.
    """
    shown = sys.stderr.isatty() if shown is None else shown
    return _counted(items, len(items), of) if shown else iter(items)


def _counted(items: Iterable, total: int, of: str) -> Iterator:
    began = last = time.monotonic()
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - began >= PATIENCE and now - last >= 0.1:
                print(f"\r{done} of {total} {of} ", end="", file=sys.stderr, flush=True)
                last = now
            yield item
    finally:
        if last > began:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # clears the line
