"""Tables as plain text and as HTML."""

import dataclasses
import html
from collections.abc import Sequence

from packnet_tf.backend.text import printable


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], total: int = 0) -> str:
    """Lays out a table: the first column left-aligned, the others right-aligned.

    Args:
        head: column titles.
        rows: rows of cells.
        total: number of rows at the end that are sums; a rule separates them.
    """
    head, *rows = [[printable(cell) for cell in row] for row in (head, *rows)]
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


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], total: int = 0, remarks: Sequence[str] = ()
) -> str:
    """Renders a table as HTML, aligned as in `text_table`; all texts are escaped.

    Args:
        head, rows, total: as for `text_table`.
        remarks: sentences below the table.
    """

    def line(row: Sequence[str], tag: str, weight: str = "normal") -> str:
        sides = ["left"] + ["right"] * (len(row) - 1)
        texts = [html.escape(printable(cell)) for cell in row]
        cells = [
            f'<{tag} style="text-align: {side}; font-weight: {weight}">{text}</{tag}>'
            for text, side in zip(texts, sides, strict=True)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    lines = [line(head, "th", "bold")]
    for place, row in enumerate(rows):
        lines.append(line(row, "td", "normal" if place < len(rows) - total else "bold"))
    below = [f"<p>{html.escape(printable(remark))}</p>" for remark in remarks]
    return "\n".join(["<table>", *lines, "</table>", *below])


@dataclasses.dataclass(frozen=True)
class Table:
    """The contents of a table: the arguments of `text_table`, and sentences below it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int = 0
    remarks: Sequence[str] = ()


class AsTable:
    """Base class of results that print as a table, and that notebooks show as one."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        table = self._table()
        return "\n".join(
            [text_table(table.head, table.rows, table.total), *map(printable, table.remarks)]
        )

    def _repr_html_(self) -> str:
        table = self._table()
        return html_table(table.head, table.rows, table.total, table.remarks)


def count_bytes(size: int) -> str:
    """Formats a file size: bytes up to 1000, then kB and MB."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size} bytes"
