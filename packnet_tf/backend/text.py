"""Text from files and from other libraries, safe to show and short.

Names of classes, files and layers may come from anybody. Control characters in them would move the
cursor of a terminal or recolour it, and marks of writing direction would reorder what is read.
"""

import re
from collections.abc import Iterable
from typing import Any, TextIO

MESSAGE = 1000  # characters of the longest message
QUOTED = 400  # characters of the longest text that a message quotes
LISTED = 8  # names that a message lists
_GAP = " [...] "

# Control characters, line and paragraph separators, and marks of writing direction.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: object, keep: str = "") -> str:
    r"""Returns a text with control characters and marks of writing direction as visible escapes.

    Args:
        text: the text, or any object that has one.
        keep: characters that stay as they are, a line feed for instance.

    Example:
        >>> printable("cat\x1b[2J")
        'cat\\x1b[2J'
    """

    def escape(found: re.Match) -> str:
        return found[0] if found[0] in keep else ascii(found[0])[1:-1]

    return _UNSAFE.sub(escape, str(text))


def shortened(text: str, most: int = MESSAGE) -> str:
    """Returns a text of at most `most` characters: its begin and its end, without the middle.

    Messages begin with what happened and end with the remedy.

    Example:
        >>> shortened("a" * 50 + "z" * 50, 17)
        'aaaaa [...] zzzzz'
    """
    if len(text) <= most:
        return text
    half, odd = divmod(most - len(_GAP), 2)
    return f"{text[: half + odd]}{_GAP}{text[len(text) - half :]}"


def quoted(error: object, most: int = QUOTED) -> str:
    """Returns what another library's error says, or a value, for a message: short, on one line.

    Args:
        error: the exception; one without text is quoted by its class.
        most: how many characters to quote.
    """
    begin_and_end = shortened(str(error), 10 * most)  # of megabytes, perhaps
    said = " ".join(begin_and_end.split()) or type(error).__name__
    return printable(shortened(said, most))


def listed(names: Iterable[object]) -> str:
    """Lists names in quotes for a message, the first few of many.

    Example:
        >>> listed(["birds", "cars"]), listed(range(11))
        ("'birds', 'cars'", "'0', '1', '2', '3', '4', '5', '6', '7' and 3 more")
    """
    every = [f"'{shortened(printable(name), 60)}'" for name in names]
    more = len(every) - LISTED
    return ", ".join(every[:LISTED]) + (f" and {more:,} more" if more > 0 else "")


class EscapingStream:
    r"""A stream of text for a terminal, with everything that is written to it made `printable`.

    Args:
        stream: the stream that gets the text.

    Attributes:
        plain: that stream, for the few who move the cursor themselves.
        rich_proxied_file: the same; rich draws its bars there.

    Example:
        >>> import sys
        >>> print("cat\x1b[2J", file=EscapingStream(sys.stdout))
        cat\x1b[2J
    """

    def __init__(self, stream: TextIO) -> None:
        self.plain = self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.plain.write(printable(text, keep="\n\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)
