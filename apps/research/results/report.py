"""The report of a comparison: a printed table, JSON, CSV, figures, and an HTML page."""

import base64
import dataclasses
import html
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.research.definition import Comparison
from packnet_tf.apps.research.results.summary import Line, collect, lines, write_csv
from packnet_tf.apps.research.running.worker import RESULT
from packnet_tf.apps.research.runs import Entry
from packnet_tf.backend.atomic import replacing
from packnet_tf.reporting.quality import FLOOR
from packnet_tf.reporting.tables import count_bytes, text_table

PACKAGES = ("keras", "tensorflow", "numpy")
NOTES = (
    "Test accuracy in %, mean and standard deviation over seeds. ACC: mean over the tasks at the "
    "end. BWT: change of earlier tasks since each was learnt. Forgetting: distance from the best a "
    "task ever was. Gap: what individual networks do better than each task when it was learnt, in "
    "points (the price of sharing; what is forgotten later is not in it). "
    "Storage: bytes on disk for all tasks, against one network and against one per task. Time: of "
    "training alone, while as many runs as --jobs shared the machine.",
)


def write_report(comparison: Comparison, entries: Sequence[Entry], output: pathlib.Path) -> str:
    """Writes results.json, results.csv, figures/ and report.html; returns the closing summary.

    Args:
        comparison: the comparison.
        entries: the entries of the report; those with failed runs are skipped.
        output: the folder to write to; its folder `runs/` holds the runs.
    """
    found = lines(comparison, collect(entries, output / "runs"))
    if not found:
        return "No run has a result: there is nothing to report."
    titled = [(title_of(line, comparison), line) for line in found]
    content = {
        "machine": machine(),
        "trunk": {**dataclasses.asdict(comparison.trunk), "network": _name(comparison)},
        "image_size": comparison.image_size,
        "tasks": {name: own for name, (_, own) in comparison.tasks.items()},
        "methods": {method.label: dataclasses.asdict(method) for method in comparison.methods},
        "seeds": list(comparison.seeds),
        "settings": comparison.settings,
        "lines": [{"title": title, **line.to_dict()} for title, line in titled],
        "published_errors": comparison.published_errors,
    }
    with replacing(output / "results.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with replacing(output / "results.csv") as temporary:
        write_csv(temporary, found)
    said = [*_chosen(titled), *below_the_floor(comparison, titled)]
    said += missing(entries, output / "runs")
    head, rows = table(comparison, titled)
    text = text_table(head, rows)
    texts, pictures = _pictures(titled, output)
    with replacing(output / "report.html") as temporary:
        temporary.write_text(
            page(comparison, head, rows, around_prune(titled), said, pictures, texts),
            encoding="utf-8",
        )
    return "\n".join(
        ["", text, "", *NOTES, *said, "", f"Report: {output / 'report.html'}",
         f"Results: {output / 'results.json'}, {output / 'results.csv'}"]
    )  # fmt: skip


def below_the_floor(comparison: Comparison, titled: Sequence[tuple[str, Line]]) -> list[str]:
    """Returns a warning for every packed or individual network that a linear head beats.

    Individual networks that are too weak make everything compared with them look better.
    """
    kinds = {method.label: method.kind for method in comparison.methods}
    heads = [line for _, line in titled if kinds[line.label] == "classifier_only"]
    said = []
    for title, line in titled if heads else ():
        if kinds[line.label] not in ("packnet", "individual", "guide"):
            continue
        below = [
            f"{name} ({line.tasks[name][0]:.1%} against {heads[0].tasks[name][0]:.1%})"
            for name in line.tasks
            if line.tasks[name][0] < heads[0].tasks[name][0] - FLOOR
        ]
        if below:
            weak = ", so gaps to it flatter packing" if kinds[line.label] == "individual" else ""
            said.append(
                f"WARNING: {title} is below a linear head on the frozen trunk in {', '.join(below)}"
                f"{weak}. Train longer or at another learning rate; see docs/low_accuracy.md."
            )
    return said


def title_of(line: Line, comparison: Comparison) -> str:
    """Returns a line's title: its method, its order unless it is the file's, and missing seeds."""
    given, title = tuple(comparison.tasks), line.label
    if line.order == given[::-1] and len(given) > 1:
        title += ", reverse"
    elif line.order not in (None, given):
        title += f", {' > '.join(line.order)}"
    if len(line.seeds) < len(comparison.seeds):
        title += f" ({len(line.seeds)} of {len(comparison.seeds)} seeds)"
    return title


def table(comparison: Comparison, titled: Sequence[tuple[str, Line]]):
    """Returns the head and the rows of the main table."""
    names = list(comparison.tasks)
    head = [
        "method",
        *names,
        "ACC",
        "BWT",
        "forgetting",
        "gap",
        "storage",
        "/ one",
        "/ all",
        "time",
    ]
    rows = []
    for title, line in titled:
        rows.append(
            [
                title,
                *(_percent(line.tasks[name]) for name in names),
                *map(_percent, (line.acc, line.bwt, line.forgetting, line.gap)),
                count_bytes(round(line.bytes[0])),
                *(f"{share[0]:.3f}" for share in (line.of_one, line.of_all)),
                f"{line.seconds[0] / 60:.1f} min",
            ]
        )
    for label, errors in comparison.published_errors.items():
        cells = [f"{100 - errors[name]:.1f}" if name in errors else "-" for name in names]
        mean = f"{100 - np.mean(list(errors.values())):.1f}" if errors else "-"
        rows.append([f"published: {label}", *cells, mean, *["-"] * 7])
    return head, rows


def around_prune(titled: Sequence[tuple[str, Line]]) -> tuple[list[str], list[list[str]]]:
    """Returns a table of validation accuracies before a prune, after it and after retraining."""
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
    return head, rows


def missing(entries: Sequence[Entry], folder: pathlib.Path) -> list[str]:
    """Returns a sentence per run without a result."""
    runs = {run.key: (e.label, run) for e in entries for run in e.runs}
    return [
        f"{label}: the run {key} has no result ({run.title})."
        for key, (label, run) in runs.items()
        if not (folder / key / RESULT).exists()
    ]


def machine() -> dict:
    """Returns the machine and the versions that the runs used."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "processor": platform.machine(), **versions}


def page(comparison: Comparison, head, rows, moments, said, pictures: dict, texts: dict) -> str:
    """Returns the report as one HTML page, with its figures embedded."""
    figures = "".join(
        f'<figure><img alt="{html.escape(name)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(texts[name].encode()).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for name, (_, caption) in pictures.items()
    )
    around = f"<h2>Around the prune</h2>{AROUND}{_html_table(*moments)}" if moments[1] else ""
    tasks = ", ".join(comparison.tasks)
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    return PAGE.format(
        title=html.escape(f"{len(comparison.tasks)} tasks in one network"),
        facts=html.escape(
            f"Tasks: {tasks}. Trunk: {_name(comparison)}. Seeds: "
            f"{', '.join(map(str, comparison.seeds))}. {facts}."
        ),
        table=_html_table(head, rows),
        notes=html.escape(" ".join([*NOTES, *said])),
        around=around,
        figures=figures,
    )


AROUND = """<p class="notes">Accuracy on validation images. Where a task was pruned gradually, the
first is when pruning began, early in its training, and the second when all was released.</p>
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
  max-width: 1180px; padding: 0 1em }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }}
th, td {{ padding: .35em .7em; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
th {{ border-bottom: 2px solid #222 }}
tr:nth-child(even) td {{ background: #f5f6f8 }}
.wide {{ overflow-x: auto }}
figure {{ margin: 2.5em 0 }} figure img {{ max-width: 100% }}
figcaption, .notes {{ color: #555; max-width: 60em }}
</style></head><body>
<h1>{title}</h1>
<p class="notes">{facts}</p>
<div class="wide">{table}</div>
<p class="notes">{notes}</p>
{figures}
{around}
</body></html>
"""


def _name(comparison: Comparison) -> str:
    """Returns the trunk's name, without the folder of its file."""
    return pathlib.Path(comparison.trunk.network).name


def _html_table(head, rows) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _pictures(titled, output: pathlib.Path):
    from packnet_tf.apps.research.results.figures import draw_all, write_figures

    filters = None
    for _, line in titled:
        path = output / "runs" / line.measured[0].entry.runs[0].key / "filters.npz"
        if filters is None and path.exists():
            with np.load(path, allow_pickle=False) as file:
                filters = {name: file[name] for name in file.files}
    pictures = draw_all(titled, filters)
    return write_figures(pictures, output / "figures"), pictures


def _chosen(titled) -> list[str]:
    """Returns a sentence per method with `choose`, on what validation images chose."""
    said = dict.fromkeys(
        f"{line.label}: validation images chose "
        + ", ".join(f"{name} {value}" for name, value in line.chosen.items())
        + "."
        for _, line in titled
        if line.chosen
    )
    return list(said)


def _percent(pair: tuple | None) -> str:
    if pair is None:
        return "-"
    mean, deviation = pair
    return f"{100 * mean:.1f} ±{100 * deviation:.1f}"
