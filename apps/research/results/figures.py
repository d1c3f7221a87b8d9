"""The figures of the report."""

import io
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from packnet_tf.apps.research.results.summary import Line
from packnet_tf.reporting.capacity import Capacity
from packnet_tf.reporting.plotting import plot_capacity, task_colours

MARKERS = "osD^vP*X<>"
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
        "is better.",
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
    """Draws bars of accuracy, a group per method and a bar per task."""
    tasks = list(report[0][1].tasks)
    colours = task_colours(len(tasks))
    figure, axes = _figure(width=max(7.0, 1.1 * len(report) + 2), height=4.2)
    width = 0.8 / len(tasks)
    for number, task in enumerate(tasks):
        means, deviations = zip(*(line.tasks[task] for _, line in report), strict=True)
        places = np.arange(len(report)) + (number - (len(tasks) - 1) / 2) * width
        axes.bar(
            places, 100 * np.array(means), width, yerr=100 * np.array(deviations), label=task,
            color=colours[number], error_kw={"linewidth": 0.8},
        )  # fmt: skip
    for place, (_, line) in enumerate(report):
        axes.text(place, 102, f"mean {100 * line.acc[0]:.1f}", ha="center", fontsize=8)
    axes.set_xticks(range(len(report)), [title for title, _ in report], rotation=20, ha="right")
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("test accuracy, %")
    figure.legend(loc="outside lower center", ncols=min(8, len(tasks)), frameon=False)
    return figure


def draw_matrices(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws heat maps of A[i, j], a mean over seeds, one per method and order."""
    columns = min(3, len(report))
    rows = -(-len(report) // columns)
    size = 1.3 + 0.55 * len(report[0][1].tasks)
    figure = Figure(figsize=(columns * size * 1.15, rows * size), layout="constrained")
    for number, (title, line) in enumerate(report):
        axes = figure.add_subplot(rows, columns, number + 1)
        matrix = np.mean([m.matrix for m in line.measured], axis=0)
        names = line.measured[0].names
        axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        for (row, column), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                colour = "white" if value < 0.6 else "black"
                axes.text(
                    column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour,
                    fontsize=8,
                )  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), [f"after {name}" for name in names], fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.spines[:].set_visible(False)
    return figure


def draw_storage(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws mean accuracy against storage."""
    figure, axes = _figure(width=8.5, height=4.6)
    colours = task_colours(len(report))
    for number, (title, line) in enumerate(report):
        axes.errorbar(
            line.of_one[0], 100 * line.acc[0], yerr=100 * line.acc[1], label=title, capsize=3,
            linestyle="none", marker=MARKERS[number % len(MARKERS)], markersize=8,
            color=colours[number],
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_xlabel("bytes on disk for all tasks, in networks")
    axes.set_ylabel("mean test accuracy, %")
    axes.grid(color="#EEEEEE")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def draw_ratios(report: Sequence[tuple[str, Line]]) -> Figure:
    """Draws accuracy against pruning ratio, a colour per task and a marker per method."""
    figure, axes = _figure(width=8.5, height=4.8)
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
    for name in tasks:
        axes.plot([], [], "s", color=colours[name], label=name)
    for number, (title, _) in enumerate(report):
        axes.plot([], [], MARKERS[number % len(MARKERS)], color="#555555", label=title)
    axes.set_xlabel("pruning ratio: share of its claim that the task released")
    axes.set_ylabel("accuracy on validation images, %")
    axes.set_xlim(-0.05, 1.0)
    axes.set_ylim(0, 103)
    axes.grid(color="#EEEEEE")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def drawable(filters: dict[str, np.ndarray]) -> bool:
    """Whether filters can be drawn as images, with the shape (height, width, 1 or 3, filters)."""
    first = filters["trunk"]
    return first.ndim == 4 and first.shape[2] in (1, 3) and first.shape[0] > 1


def draw_filters(filters: dict[str, np.ndarray]) -> Figure:
    """Draws filters, a row per task and a column per filter; weights of 0 are grey."""
    count = min(FILTERS, filters["trunk"].shape[-1])
    figure = Figure(figsize=(0.55 * count + 1.6, 0.62 * len(filters) + 0.2), layout="constrained")
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


def svg(figure: Figure) -> str:
    """Returns a figure as SVG text, always the same for the same figure."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "packnet"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def write_figures(pictures: dict, folder: pathlib.Path) -> dict[str, str]:
    """Writes every figure to an SVG file; returns their texts by name."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: svg(figure) for name, (figure, _) in pictures.items()}
    for name, text in texts.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return texts


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
