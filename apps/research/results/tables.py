"""The tables of a comparison."""

from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.research.definition import Comparison
from packnet_tf.apps.research.results.summary import Line
from packnet_tf.reporting.tables import Table, count_bytes


def summary_table(titled: Sequence[tuple[str, Line]]) -> Table:
    """Returns a row per method: means over the tasks, storage and time."""
    head = ["method", "ACC", "BWT", "forgetting", "gap", "storage", "/ one", "/ all", "time"]
    rows = [
        [
            title,
            *(percent(pair, line) for pair in (line.acc, line.bwt, line.forgetting, line.gap)),
            count_bytes(round(line.bytes[0])),
            *(f"{share[0]:.3f}" for share in (line.of_one, line.of_all)),
            f"{line.seconds[0] / 60:.1f} min",
        ]
        for title, line in titled
    ]
    return Table(head, rows)


def task_table(comparison: Comparison, titled: Sequence[tuple[str, Line]]) -> Table:
    """Returns a row per task and a column per method, those of `published_errors` included."""
    published = comparison.published_errors
    head = ["task", *(title for title, _ in titled), *(f"published: {name}" for name in published)]
    rows = [
        [
            name,
            *(percent(line.tasks[name], line) for _, line in titled),
            *(f"{100 - e[name]:.1f}" if name in e else "-" for e in published.values()),
        ]
        for name in comparison.tasks
    ]
    means = [f"{100 - np.mean(list(e.values())):.1f}" if e else "-" for e in published.values()]
    rows.append(["mean", *(percent(line.acc, line) for _, line in titled), *means])
    return Table(head, rows)


def prune_table(titled: Sequence[tuple[str, Line]]) -> Table:
    """Returns validation accuracies before a prune, after it and after retraining."""
    head = ["method, task", "released", "before the prune", "after it", "retrained"]
    rows = []
    for title, line in titled:
        if not line.measured[0].result.get("moments"):
            continue
        for name in line.measured[0].names:
            cells = [f"{np.mean([m.result['ratios'][name] for m in line.measured]):.1%}"]
            for moment in ("before_prune", "after_prune", "retrained"):
                values = [m.result["moments"][name].get(moment) for m in line.measured]
                cells.append("-" if None in values else f"{np.mean(values):.1%}")
            rows.append([f"{title}, {name}", *cells])
    return Table(head, rows)


def percent(pair: tuple | None, line: Line) -> str:
    """Formats a mean in %, with its standard deviation if the line has several seeds."""
    if pair is None:
        return "-"
    mean, deviation = (100 * value for value in pair)
    return f"{mean:.1f} ±{deviation:.1f}" if len(line.seeds) > 1 else f"{mean:.1f}"
