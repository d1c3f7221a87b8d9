"""Plain-text tables."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], total: int = 0) -> str:
    """Lays out a table: the first column left-aligned, the others right-aligned.

    Args:
        head: column titles.
        rows: rows of cells.
        total: number of rows at the end that are sums; a rule separates them.
    """
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = row
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    lines = [line(row) for row in rows]
    rule = "-" * max(len(text) for text in [line(head), *lines])
    body = [*lines[:-total], rule, *lines[-total:]] if total and lines else lines
    return "\n".join([line(head), rule, *body])


def count_bytes(size: int) -> str:
    """Formats a file size: bytes up to 1000, then kB and MB."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size} bytes"
