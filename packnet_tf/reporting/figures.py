"""Figures that notebooks show and files keep, and their legends; imports matplotlib."""

import io
import math
import pathlib
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from packnet_tf.backend.text import printable
from packnet_tf.backend.types import AnyPath

SOFTWARE = "packnet_tf, "  # and the function, in the metadata of .png files
FONT = 10  # points
LONGEST = 40  # characters of a name in a legend
_HANDLE = 50  # points that an entry takes beside its text
_ROW = 1.6 * FONT  # points that a row takes


class Picture(Figure):
    """A figure that a notebook shows without `matplotlib.pyplot`."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


def save(figure: Figure, path: AnyPath | None, made_by: str) -> None:
    """Writes a figure to a file and creates its folder.

    Args:
        figure: the figure.
        made_by: the function that made it, which `is_by` finds again in a .png file.
        path: the file; its suffix sets the format. None: no file.
    """
    if path is not None:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        is_png = pathlib.Path(path).suffix.lower() == ".png"
        figure.savefig(path, dpi=150, metadata={"Software": SOFTWARE + made_by} if is_png else None)


def is_by(path: AnyPath, made_by: str) -> bool:
    """Returns whether a function has drawn a file; False also for those of earlier versions.

    Args:
        path: a .png file.
        made_by: the function's name.
    """
    from PIL import Image  # comes with matplotlib

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE + made_by
    except (OSError, SyntaxError, ValueError):  # it is no picture
        return False


def text_width(texts: list[str], size: float = FONT) -> float:
    """Returns the width in inches of the widest of the texts with most characters.

    Args:
        texts: single lines.
        size: font size in points.
    """
    longest = sorted(filter(str.strip, texts), key=len)[-3:]  # measuring all takes seconds
    paths = [TextPath((0, 0), as_text(text), size=size) for text in longest]
    return max((path.get_extents().x1 for path in paths), default=0.0) / 72


def as_text(name: str) -> str:
    """Returns a name as matplotlib draws it literally; a `$` would begin a formula.

    Bytes of a file name that are no text become visible escapes.
    """
    shown = printable(name, keep="\n").encode("utf-8", "backslashreplace").decode("utf-8")
    return shown.replace("$", r"\$")


def shortened(name: str) -> str:
    """Returns a name of at most `LONGEST` characters, with its middle left out."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def legend(figure: Figure, entries: Sequence[tuple[str, Artist]]) -> None:
    """Draws a legend above the axes, in as many columns as fit into the width.

    Args:
        figure: a figure with constrained layout; it becomes higher for every row but the first.
        entries: pairs of a name and what it explains; without any, nothing is drawn.
    """
    if not entries:
        return
    names = [shortened(name) for name, _ in entries]
    column = text_width(names) + _HANDLE / 72
    columns = min(len(names), max(1, int(figure.get_figwidth() / column)))
    rows = math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + (rows - 1) * _ROW / 72)
    figure.legend(
        [artist for _, artist in entries], [as_text(name) for name in names],
        frameon=False, fontsize=FONT, loc="outside upper center",
        ncols=columns,
    )  # fmt: skip
