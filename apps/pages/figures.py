"""Figures of the report of a pack."""

from typing import TYPE_CHECKING

import numpy as np

from packnet_tf.apps.packs.standing import value_bytes
from packnet_tf.apps.pages.page import WIDTH
from packnet_tf.reporting.figures import as_text, shortened
from packnet_tf.reporting.tables import count_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERED = 20  # classes up to which a confusion matrix shows its numbers
NAMED = 60  # and up to which it names its classes


def draw_confusion(classes: list[str], matrix: np.ndarray) -> "Figure":
    """Draws a confusion matrix: the share of each class's images by answer, as shades.

    Args:
        classes: names of the classes.
        matrix: number of images (classes, classes), by right class and answered class.
    """
    from matplotlib.figure import Figure

    count = len(classes)
    figure = Figure(figsize=(WIDTH, min(9.0, 1.8 + 0.55 * count)), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    if count <= NUMBERED:
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(value), ha="center", va="center", color=colour)
    if count <= NAMED:
        size = 10 if count <= NUMBERED else 7
        names = [as_text(shortened(name)) for name in classes]
        axes.set_xticks(range(count), names, rotation=45, ha="right", fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("answer")
    axes.set_ylabel("right class")
    axes.spines[:].set_visible(False)
    return figure


def draw_storage(facts: dict) -> "Figure":
    """Draws bars of bytes: the values of the pack, of one network, and of one per task.

    Args:
        facts: what `standing` returns.
    """
    from matplotlib.figure import Figure

    storage = facts["storage"]
    separate, one = storage["separate_networks"], storage["one_network"]
    sizes = {"this pack": value_bytes(facts), "one network": one}
    if separate > one:
        sizes["a network per task"] = separate
    figure = Figure(figsize=(WIDTH, 0.9 + 0.45 * len(sizes)), layout="constrained")
    axes = figure.add_subplot()
    colours = ["#0072B2", "#BBBBBB", "#BBBBBB"][: len(sizes)]
    megabytes = [size / 1e6 for size in sizes.values()]
    bars = axes.barh(list(sizes), megabytes, color=colours)
    axes.bar_label(bars, [count_bytes(size) for size in sizes.values()], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(megabytes))
    axes.set_xlabel("MB of weights")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
