"""Renders a page from its template, with figures and pictures embedded."""

import base64
import dataclasses
import functools
import io
import pathlib
import warnings
from typing import TYPE_CHECKING

import jinja2

from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.text import printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches, of every figure: their fonts then have one size on the page


@dataclasses.dataclass(frozen=True)
class Illustration:
    """A figure of a page.

    Attributes:
        name: its name, for readers who cannot see it.
        caption: text below it.
        svg: the figure as SVG text.
    """

    name: str
    caption: str
    svg: str

    @property
    def source(self) -> str:
        """The figure as a data URI."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"


def write_page(path: str | pathlib.Path, template: str, **values: object) -> None:
    """Writes a page to a file, atomically.

    Args:
        path: the file.
        template: name of the template, without `.html`.
        values: what the template shows.
    """
    text = _environment().get_template(f"{template}.html").render(**values)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # of names of files


def svg(figure: "Figure") -> str:
    """Returns a figure as SVG text of the width of a page, always the same for the same figure."""
    import matplotlib

    text = io.StringIO()
    figure.set_figwidth(WIDTH)
    # Text stays text: a browser has the fonts of all scripts, matplotlib that of a few.
    settings = {"svg.hashsalt": "packnet", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def jpeg(image: "np.ndarray") -> str:
    """Returns a picture as a data URI.

    Args:
        image: uint8 (height, width, 1 or 3).
    """
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(data, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _visible(value: object) -> object:
    """Escapes control characters in the names and sentences that a template shows."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value, keep="\n\t")
    return value


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
