"""Plots the share of every layer that each task owns."""

import pathlib
from typing import TYPE_CHECKING

from packnet_tf.backend.types import AnyPath
from packnet_tf.reporting.capacity import Capacity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that colour-blind readers can tell apart (Okabe and Ito, 2008); grey is for free weights.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_FREE = "#DDDDDD"


def plot_capacity(capacity: Capacity, path: AnyPath | None = None) -> "Figure":
    """Draws a bar per layer: the shares of its weights that each task owns and that are free.

    Args:
        capacity: what `net.capacity()` returns.
        path: file to write; its suffix sets the format (`.png`, `.svg`, `.pdf`). None: no file.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> packnet_tf.plot_capacity(net.capacity(), "capacity.png")
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib: pip install 'packnet_tf[apps]', or pip install matplotlib."
        ) from error

    names = [*capacity, "all"]
    entries = [*capacity.values(), capacity.sum()]
    figure = Figure(figsize=(9, 1.6 + 0.34 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(names))
    start = [0.0] * len(names)
    for number, task in enumerate([*capacity.tasks, None]):
        parts = [entry["free"] if task is None else entry["owned"][task] for entry in entries]
        shares = [part / entry["total"] for part, entry in zip(parts, entries, strict=True)]
        colour = _FREE if task is None else _COLOURS[number % len(_COLOURS)]
        axes.barh(places, shares, left=start, color=colour, label=task or "free", height=0.8)
        start = [left + share for left, share in zip(start, shares, strict=True)]
    labels = [f"{name}  ({entry['total']:,})" for name, entry in zip(names, entries, strict=True)]
    axes.set_yticks(list(places), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of the layer's packed weights")
    axes.set_title(f"Owners per layer: {1 - capacity.free:.1%} owned, {capacity.free:.1%} free")
    axes.axhline(len(names) - 1.5, color="black", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(8, len(capacity.tasks) + 1), frameon=False)
    if path is not None:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return figure
