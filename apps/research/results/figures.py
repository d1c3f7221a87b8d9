"""The figures of the report."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from packnet_tf.apps.pages.page import WIDTH
from packnet_tf.apps.research.results.summary import Line
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.colours import task_colours
from packnet_tf.reporting.figures import as_text, legend, shortened
from packnet_tf.reporting.plotting import plot_capacity

MARKERS = "osD^vP*X<>"
CHARACTER = 0.1  # inches per character of a title, about
FILTERS = 16  # number of filters of the first layer to show


def draw_all(report: Sequence[tuple[str, Line]], filters: dict[str, np.ndarray] | None) -> dict:
    """Draws every figure that there are data for.

    Args:
        report: the lines with their titles.
        filters: the first filters as a task sees them, by "task NAME"; those of the trunk come
            first, by "trunk".

    Returns:
        By name, pairs of a `matplotlib.figure.Figure` and its caption.
    """
    pictures = {"accuracy": (draw_tasks(report), "Test accuracy of every task at the end.")}
    ordered = [(title, line) for title, line in report if line.measured[0].ordered]
    if ordered:
        pictures["matrix"] = (
            draw_matrices(ordered),
            "Test accuracy in %: a row after every task learnt, a column for every task. Where "
            "nothing is forgotten a column does not change from its first value on.",
        )
    pictures["storage"] = (
        draw_storage(report),
        "Mean test accuracy against bytes on disk for all tasks, in networks. Up and to the left "
        "is better; the grey line joins the methods that no other beats in both.",
    )
    packed = [(title, line) for title, line in report if line.measured[0].result.get("ratios")]
    if packed:
        pictures["ratio"] = (
            draw_ratios(packed),
            "Accuracy on validation images against the share of its claim that a task released: "
            "when all was released, before the retraining (open), and after it (filled).",
        )
        capacity = packed[0][1].measured[0].result["capacity"]
        pictures["owners"] = (
            plot_capacity(Capacity(capacity["layers"], tuple(capacity["tasks"]))),
            f"Who owns which share of every layer: {packed[0][0]}.",
        )
    if filters and drawable(filters):
        pictures["filters"] = (
            draw_filters(filters),
            f"The same {FILTERS} filters of the first layer as every task sees them, at most: grey "
            "is 0, a weight that is not its to use. Weights once owned never change.",
        )
    return pictures


def draw_tasks(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws accuracies at the end: a panel per task and one of their mean."""
    tasks = list(report[0][1].tasks)
    panels = {"mean": [line.acc for _, line in report]} if len(tasks) > 1 else {}
    panels |= {task: [line.tasks[task] for _, line in report] for task in tasks}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, rows * (0.8 + 0.3 * len(report))), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    low, high = _limits([mean for pairs in panels.values() for mean, _ in pairs])
    colours = task_colours(len(report))
    for (name, pairs), panel in zip(panels.items(), axes.flat, strict=False):
        for place, ((mean, deviation), colour) in enumerate(zip(pairs, colours, strict=True)):
            panel.errorbar(100 * mean, place, xerr=100 * deviation, fmt="o", color=colour)
            panel.text(100 * mean + 0.03 * (high - low), place, f"{100 * mean:.1f}", va="center")
        panel.set_title(as_text(shortened(name)), fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#EEEEEE")
        panel.set_axisbelow(True)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    axes[0, 0].set_yticks(range(len(report)), [as_text(shortened(title)) for title, _ in report])
    axes[0, 0].set_ylim(len(report) - 0.5, -0.5)
    axes[0, 0].set_xlim(low, high + 0.2 * (high - low))  # room for the numbers
    figure.supxlabel("test accuracy, %", fontsize=10)
    return figure


def draw_matrices(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws heat maps of A[i, j], a mean over seeds, one per method and order."""
    size = 1.5 + 0.33 * len(report[0][1].tasks)
    columns = min(len(report), max(1, int(WIDTH / size)))
    rows = -(-len(report) // columns)
    figure = Figure(figsize=(WIDTH, rows * size), layout="constrained")
    for number, (title, line) in enumerate(report):
        axes = figure.add_subplot(rows, columns, number + 1)
        matrix = np.mean([m.matrix for m in line.measured], axis=0)
        names = [as_text(shortened(name)) for name in line.measured[0].names]
        axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        for (row, column), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                colour = "white" if value < 0.6 else "black"
                axes.text(
                    column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour,
                    fontsize=8,
                )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylabel("after", fontsize=8)
        wrapped = textwrap.fill(shortened(title), int(size / CHARACTER))
        axes.set_title(as_text(wrapped), fontsize=10)
        axes.spines[:].set_visible(False)
    return figure


def draw_storage(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws mean accuracy against storage."""
    figure, axes = _figure(height=4.6)
    explained = []
    for number, ((title, line), colour) in enumerate(
        zip(report, task_colours(len(report)), strict=True)
    ):
        marks = axes.errorbar(
            line.of_one[0], 100 * line.acc[0], yerr=100 * line.acc[1], capsize=3,
            linestyle="none", marker=MARKERS[number % len(MARKERS)], markersize=8, color=colour,
        )  # fmt: skip
        explained.append((title, marks))
    points = [(line.of_one[0], 100 * line.acc[0]) for _, line in report]
    axes.plot(*zip(*pareto_front(points), strict=True), color="#BBBBBB", zorder=0)
    axes.set_xlim(0, 1.05 * max(size for size, _ in points))
    axes.set_xlabel("bytes on disk for all tasks, in networks")
    axes.set_ylabel("mean test accuracy, %")
    axes.grid(color="#EEEEEE")
    legend(figure, explained)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points that no other beats in both: fewer bytes, or a higher accuracy.

    Args:
        points: pairs of bytes and accuracy, in any unit.

    Example:
        >>> pareto_front([(2, 90), (1, 80), (3, 85)])
        [(1, 80), (2, 90)]
    """
    front: list[tuple[float, float]] = []
    for size, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((size, accuracy))
    return front


def draw_ratios(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws accuracy against pruning ratio, a colour per task and a marker per method."""
    figure, axes = _figure(height=4.8)
    tasks = list(report[0][1].tasks)
    colours = dict(zip(tasks, task_colours(len(tasks)), strict=True))
    for number, (_, line) in enumerate(report):
        marker = MARKERS[number % len(MARKERS)]
        for m in line.measured:
            for name, ratio in m.result["ratios"].items():
                moments = m.result["moments"][name]
                if "after_prune" not in moments:  # the task was not pruned
                    continue
                colour = colours[name]
                after, retrained = (100 * moments[k] for k in ("after_prune", "retrained"))
                axes.plot([ratio, ratio], [after, retrained], color=colour, linewidth=0.6)
                axes.plot(ratio, after, marker, color=colour, markerfacecolor="white")
                axes.plot(ratio, retrained, marker, color=colour)
    explained = [(name, axes.plot([], [], "s", color=colours[name])[0]) for name in tasks]
    for number, (title, _) in enumerate(report):
        (marks,) = axes.plot([], [], MARKERS[number % len(MARKERS)], color="#555555")
        explained.append((title, marks))
    axes.set_xlabel("pruning ratio: share of its claim that the task released")
    axes.set_ylabel("accuracy on validation images, %")
    axes.grid(color="#EEEEEE")
    legend(figure, explained)
    return figure


def drawable(filters: dict[str, np.ndarray]) -> bool:
    """Whether filters can be drawn as images, with the shape (height, width, 1 or 3, filters)."""
    first = filters["trunk"]
    return first.ndim == 4 and first.shape[2] in (1, 3) and first.shape[0] > 1


def draw_filters(filters: dict[str, np.ndarray]) -> Figure:
    """Draws filters, a row per task and a column per filter; weights of 0 are grey."""
    count = min(FILTERS, filters["trunk"].shape[-1])
    height = (WIDTH - 1.6) / count + 0.07
    figure = Figure(figsize=(WIDTH, min(0.62, height) * len(filters) + 0.2), layout="constrained")
    axes = figure.subplots(len(filters), count, squeeze=False)
    top = np.abs(filters["trunk"]).max(axis=(0, 1, 2), keepdims=True)
    for row, (name, kernel) in enumerate(filters.items()):
        shown = np.clip(0.5 + kernel / (2 * np.maximum(top, 1e-12)), 0, 1)
        for column in range(count):
            cell = axes[row][column]
            cell.imshow(np.broadcast_to(shown[..., column], (*shown.shape[:2], 3)))
            cell.set_xticks([])
            cell.set_yticks([])
            cell.spines[:].set_visible(False)
        axes[row][0].set_ylabel(
            name.removeprefix("task "), rotation=0, ha="right", va="center", fontsize=9
        )
    return figure


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Returns the limits of an axis in %, from accuracies of 0 to 1: tens that hold all of them."""
    low, high = 10 * math.floor(10 * min(values)), 10 * math.ceil(10 * max(values))
    return (max(0, low - 10), high) if low == high else (low, high)


def _figure(height: float):
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
