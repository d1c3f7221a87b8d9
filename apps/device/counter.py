"""Shows the progress of a long run on one line of a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence

PATIENCE = 2.0  # seconds before anything is shown: short runs stay quiet


def counted(items: Sequence, of: str, shown: bool | None = None) -> Iterator:
    """Yields items, and counts them on stderr if that takes long.

    Args:
        items: the items.
        of: their plural noun, "images" for instance.
        shown: whether to show the count; default: if stderr is a terminal.
    """
    shown = sys.stderr.isatty() if shown is None else shown
    return _counted(items, len(items), of) if shown else iter(items)


def _counted(items: Iterable, total: int, of: str) -> Iterator:
    began = last = time.monotonic()
    try:
        for done, item in enumerate(items):
            now = time.monotonic()
            if now - began >= PATIENCE and now - last >= 0.1:
                _say(f"\r{done} of {total} {of} ")
                last = now
            yield item
    finally:
        if last > began:
            _say("\r\x1b[K")  # clears the line


def _say(text: str) -> None:
    # Commands escape what would move the cursor.
    print(text, end="", file=getattr(sys.stderr, "plain", sys.stderr), flush=True)
