"""The report of a comparison: a printed table, JSON, CSV, figures, and an HTML page."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.pages.page import Illustration, svg, write_page
from packnet_tf.apps.research.definition import BETTER, DIVERGED, Comparison
from packnet_tf.apps.research.results.sentences import (
    below_the_floor,
    chosen,
    linear_heads,
    missing,
    verdict,
)
from packnet_tf.apps.research.results.summary import Line, collect, lines, write_csv
from packnet_tf.apps.research.results.tables import prune_table, summary_table, task_table
from packnet_tf.apps.research.runs import Entry
from packnet_tf.backend.atomic import replacing
from packnet_tf.reporting.tables import Table, text_table

PACKAGES = ("keras", "tensorflow", "numpy")
NOTES = (
    "Test accuracy in %, mean and standard deviation over seeds. ACC: mean over the tasks at the "
    "end. BWT: change of earlier tasks since each was learnt. Forgetting: distance from the best a "
    "task ever was. Gap: what individual networks do better than each task when it was learnt, in "
    "points (the price of sharing; what is forgotten later is not in it). "
    "Storage: bytes on disk for all tasks, against one network and against one per task. Time: of "
    "training and of what comes before it, without measuring; other runs may have shared the "
    "machine.",
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
    replaced = _replaced(output / "results.json", content)
    with replacing(output / "results.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with replacing(output / "results.csv") as temporary:
        write_csv(temporary, found)
    heads = linear_heads(titled)
    floors = below_the_floor(comparison, titled)
    warnings = [*heads[DIVERGED], *floors, *missing(entries, output / "runs")]
    said = [*chosen(titled), *heads[BETTER], *warnings, *replaced]
    lead, tables = verdict(comparison, titled), [summary_table(titled)]
    if len(comparison.tasks) > 1:
        tables.append(task_table(comparison, titled))
    write_page(
        output / "report.html",
        "comparison",
        title=_title(comparison),
        lead=lead,
        warnings=warnings,
        tables=tables,
        notes=" ".join([*NOTES, *chosen(titled), *heads[BETTER]]),
        around=prune_table(titled),
        figures=_illustrations(titled, output),
        facts=_facts(comparison),
    )
    texts = [f"{text_table(table.head, table.rows)}\n" for table in tables]
    return "\n".join(
        ["", lead, "", *texts, *NOTES, *said, "", f"Report: {output / 'report.html'}",
         f"Results: {output / 'results.json'}, {output / 'results.csv'}"]
    )  # fmt: skip


def _replaced(path: pathlib.Path, content: dict) -> list[str]:
    """Returns a sentence if the results of another comparison are there, which are replaced."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        same = [old[key].keys() & content[key].keys() for key in ("tasks", "methods")]
        labels = ", ".join(old["methods"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if all(same):
        return []
    return [
        f"This replaces the report of another comparison ({labels}). Its runs are kept: repeat its "
        "command to have it again, with another --output to have both."
    ]


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


def machine() -> dict:
    """Returns the machine and the versions that the runs used."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "processor": platform.machine(), **versions}


def _name(comparison: Comparison) -> str:
    """Returns the trunk's name, without the folder of its file."""
    return pathlib.Path(comparison.trunk.network).name


def _title(comparison: Comparison) -> str:
    count = len(comparison.tasks)
    return f"{count} tasks in one network" if count > 1 else "One task in a network"


def _facts(comparison: Comparison) -> Table:
    rows = [
        ["trunk", _name(comparison)],
        ["seeds", ", ".join(map(str, comparison.seeds))],
        *([name, str(value)] for name, value in machine().items()),
    ]
    return Table(["of the runs", ""], rows)


def _illustrations(titled: Sequence[tuple[str, Line]], output: pathlib.Path) -> list[Illustration]:
    """Draws the figures, and writes each to an SVG file too."""
    from packnet_tf.apps.research.results.figures import draw_all

    filters = None
    for _, line in titled:
        path = output / "runs" / line.measured[0].entry.runs[0].key / "filters.npz"
        if filters is None and path.exists():
            with np.load(path, allow_pickle=False) as file:
                filters = {name: file[name] for name in file.files}
    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, (figure, caption) in draw_all(titled, filters).items():
        found.append(Illustration(name, caption, svg(figure)))
        with replacing(folder / f"{name}.svg") as temporary:
            temporary.write_text(found[-1].svg, encoding="utf-8")
    return found
