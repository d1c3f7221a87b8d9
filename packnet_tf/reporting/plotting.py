"""Plots the share of every layer that each task owns."""

from typing import TYPE_CHECKING, Any

from packnet_tf.backend.types import AnyPath
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.colours import task_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from packnet_tf.net import PackNet

_FREE = "#DDDDDD"
_MANY = 40  # layers; more than these get thinner bars and smaller names


def need_matplotlib() -> None:
    """Refuses to draw without matplotlib.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib: pip install 'packnet_tf[apps]', or pip install matplotlib."
        ) from error


def plot_capacity(capacity: "PackNet | Capacity", path: AnyPath | None = None) -> "Figure":
    """Draws a bar per layer: the shares of its weights that each task owns and that are free.

    Args:
        capacity: a pack, or what `net.capacity()` returns.
        path: file to write; its suffix sets the format (`.png`, `.svg`, `.pdf`). None: no file.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `capacity` is neither.

    Example:
        >>> figure = packnet_tf.plot_capacity(net, "capacity.png")
    """
    need_matplotlib()
    from packnet_tf.reporting.figures import Picture, as_text, legend, save, text_width

    found = _capacity_of(capacity)
    names = [*found, "all"]
    entries = [*found.values(), found.sum()]
    labels = [f"{name}  ({entry['total']:,})" for name, entry in zip(names, entries, strict=True)]
    height, size = (0.17, 7) if len(names) > _MANY else (0.34, 10)
    figure = Picture(
        figsize=(6.5 + text_width(labels, size), 1.8 + height * len(names)), layout="constrained"
    )
    axes = figure.add_subplot()
    places = range(len(names))
    parts = {task: [entry["owned"][task] for entry in entries] for task in found.tasks}
    colours = [*task_colours(len(parts)), _FREE]
    start, explained = [0.0] * len(names), []
    for (name, counts), colour in zip(
        [*parts.items(), ("free", [entry["free"] for entry in entries])], colours, strict=True
    ):
        shares = [count / entry["total"] for count, entry in zip(counts, entries, strict=True)]
        bars = axes.barh(places, shares, left=start, color=colour, height=0.8)
        explained.append((name, bars[0]))
        start = [left + share for left, share in zip(start, shares, strict=True)]
    axes.set_yticks(list(places), [as_text(label) for label in labels], fontsize=size)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the layer's packed weights")
    axes.set_title(f"Owners per layer: {1 - found.free:.1%} owned, {found.free:.1%} free")
    axes.axhline(len(names) - 1.5, color="black", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    legend(figure, explained)
    save(figure, path, "plot_capacity")
    return figure


def _capacity_of(given: Any) -> Capacity:
    if isinstance(given, Capacity):
        return given
    found = given.capacity() if callable(getattr(given, "capacity", None)) else None
    if not isinstance(found, Capacity):
        raise ValueError(
            f"plot_capacity draws a pack or its capacity; got {type(given).__name__}. Write "
            "packnet_tf.plot_capacity(net)."
        )
    return found
