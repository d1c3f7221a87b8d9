"""Summarizes results as lines of the report: candidates by validation, means over seeds."""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from packnet_tf.apps.research.definition import SHARING, Comparison
from packnet_tf.apps.research.running.worker import RESULT
from packnet_tf.apps.research.runs import Entry
from packnet_tf.metrics import (
    backward_transfer,
    forgetting,
    gaps,
    mean_and_deviation,
)


@dataclasses.dataclass
class Measured:
    """An entry of the report with its measurements.

    Attributes:
        entry: method, order and seed.
        names: names of the tasks, in the order of learning.
        matrix: test accuracies (T, T), 0 to 1, NaN above the diagonal; shape (1, T) for methods
            without an order.
        validation: the same on validation images.
        bytes: bytes on disk for all tasks.
        one_network, network_per_task: bytes on disk of one plain network, and of one per task.
        seconds: seconds of training, for all tasks together.
        linear_heads: by task, why its linear head is in place of what was trained.
        result: the result of the (first) run, for values that only packing has.
    """

    entry: Entry
    names: tuple[str, ...]
    matrix: np.ndarray
    validation: np.ndarray
    bytes: int
    one_network: int
    network_per_task: int
    seconds: float
    linear_heads: dict[str, str]
    result: dict

    @property
    def ordered(self) -> bool:
        """Whether the method learns tasks in an order, so that the matrix is square."""
        return self.entry.order is not None

    @property
    def final(self) -> dict[str, float]:
        """The test accuracy of every task at the end."""
        return dict(zip(self.names, self.matrix[-1], strict=True))

    @property
    def learnt(self) -> dict[str, float]:
        """The test accuracy of every task right after it was learnt."""
        row = np.diag(self.matrix) if self.ordered else self.matrix[-1]
        return dict(zip(self.names, row, strict=True))


@dataclasses.dataclass
class Line:
    """A method in one order, over all seeds; each value is a pair (mean, standard deviation).

    Attributes:
        label: label of the method.
        chosen: the values that validation images chose; empty without a choice.
        order: names of the tasks; None for methods without an order.
        seeds: the seeds that have a result.
        tasks: test accuracy at the end, by task.
        acc, bwt, forgetting, gap: see `packnet_tf.metrics`; the gap is a mean over all tasks,
            forgetting over all but the last, which cannot be forgotten. None if they do not apply,
            or the individual networks are missing.
        gaps: gap by task.
        bytes: bytes on disk for all tasks.
        of_one, of_all: bytes divided by those of one network, and of one network per task.
        seconds: seconds of training.
        measured: the entries that it summarizes.
    """

    label: str
    chosen: dict
    order: tuple[str, ...] | None
    seeds: tuple[int, ...]
    tasks: dict
    acc: tuple
    bwt: tuple | None
    forgetting: tuple | None
    gap: tuple | None
    gaps: dict
    bytes: tuple
    of_one: tuple
    of_all: tuple
    seconds: tuple
    measured: list[Measured]

    def to_dict(self) -> dict:
        """Returns the line and its runs as plain numbers for JSON."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "measured"
        }
        runs = [
            {
                "seed": m.entry.seed,
                "tasks": m.names,
                "test": _rows(m.matrix),
                "validation": _rows(m.validation),
                "seconds": m.seconds,
                "bytes": m.bytes,
                "linear_heads": m.linear_heads,
                **{k: m.result[k] for k in ("ratios", "moments", "capacity") if k in m.result},
                "runs": [run.key for run in m.entry.runs],
            }
            for m in self.measured
        ]
        return {**plain, "runs": runs}


def collect(entries: Sequence[Entry], folder: pathlib.Path) -> list[Measured]:
    """Reads the results of entries; skips entries without a complete result."""
    found = []
    for entry in entries:
        paths = [folder / run.key / RESULT for run in entry.runs]
        if all(path.exists() for path in paths):
            results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            found.append(_measured(entry, results))
    return found


def lines(comparison: Comparison, measured: Sequence[Measured]) -> list[Line]:
    """Returns a line for every method and order, with the candidate that is best in validation."""
    chosen = {
        method.label: choose([m for m in measured if m.entry.label == method.label])
        for method in comparison.methods
    }
    individual = {}
    for method in comparison.methods:
        if method.kind == "individual" and not individual:
            individual = {m.entry.seed: m.final for m in chosen[method.label]}
    made = []
    for method in comparison.methods:
        orders = dict.fromkeys(m.entry.order for m in chosen[method.label])
        for order in orders:
            own = [m for m in chosen[method.label] if m.entry.order == order]
            made.append(_line(method.label, order, own, individual))
    return made


def choose(measured: Sequence[Measured]) -> list[Measured]:
    """Returns the entries of the candidate with the highest mean validation accuracy.

    Test accuracies are not used. The candidates with the most results are compared, on the seeds
    and orders for which all of these have one; the others may have diverged.
    """
    groups: dict[str, dict] = {}
    for m in measured:
        group = groups.setdefault(json.dumps(m.entry.candidate, sort_keys=True), {})
        group[m.entry.seed, m.entry.order] = m
    most = max(map(len, groups.values()), default=0)
    left = [group for group in groups.values() if len(group) == most]
    common = set.intersection(*map(set, left)) if left else set()

    def score(group) -> float:
        return np.mean([group[key].validation[-1].mean() for key in common or group])

    return list(max(left, key=score, default={}).values())


def write_csv(path: pathlib.Path, report: Sequence[Line]) -> None:
    """Writes a CSV file with a row per method, order, seed and task."""
    head = ["method", "order", "seed", "task", "place", "test_when_learnt", "test_at_the_end"]
    moments = ["before_prune", "after_prune", "retrained"]
    head += ["prune_ratio", *(f"validation_{m}" for m in moments), "bytes", "seconds"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(head)
        for line in report:
            for m in line.measured:
                order = " ".join(line.order) if line.order else ""
                for place, name in enumerate(m.names, start=1):
                    around = m.result.get("moments", {}).get(name, {})
                    rows.writerow(
                        [line.label, order, m.entry.seed, name, place if line.order else ""]
                        + [f"{m.learnt[name]:.6f}", f"{m.final[name]:.6f}"]
                        + [m.result.get("ratios", {}).get(name, "")]
                        + [around.get(moment, "") for moment in moments]
                        + [m.bytes, f"{m.seconds:.1f}"]
                    )


def _measured(entry: Entry, results: list[dict]) -> Measured:
    names = tuple(task["name"] for run in entry.runs for task in run.tasks)
    if len(results) > 1 or len(names) == 1:  # a run per task
        test, validation = (
            np.array([[r[split][-1][-1] for r in results]]) for split in ("test", "validation")
        )
    else:
        test, validation = (_square(results[0][split]) for split in ("test", "validation"))
    per_task = len(entry.runs) > 1
    kind = entry.runs[0].kind
    size = sum(r["bytes"] for r in results)
    if kind in SHARING and per_task:  # one trunk, and what each further task adds
        size = results[0]["bytes"] + sum(r["task_bytes"] for r in results[1:])
    return Measured(
        entry, names, test, validation, size,
        results[0]["one_network_bytes"],
        sum(r["network_per_task_bytes"] for r in results),
        sum(sum(r["seconds"].values()) for r in results),
        {task: why for r in results for task, why in r.get("linear_heads", {}).items()},
        results[0],
    )  # fmt: skip


def _mean_forgetting(matrix: np.ndarray) -> float:
    earlier = forgetting(matrix)[:-1]
    return float(np.mean(earlier)) if earlier else 0.0


def _square(rows: list[list[float]]) -> np.ndarray:
    matrix = np.full((len(rows), len(rows[-1])), np.nan)
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    return matrix


def _line(label: str, order, own: Sequence[Measured], individual: dict) -> Line:
    names = own[0].names
    compared = [m for m in own if m.entry.seed in individual]
    differences = [
        dict(zip(names, gaps([m.learnt[n] for n in names],
                             [individual[m.entry.seed][n] for n in names]), strict=True))
        for m in compared
    ]  # fmt: skip
    ordered = own[0].ordered
    return Line(
        label=label,
        chosen=own[0].entry.candidate,
        order=order,
        seeds=tuple(m.entry.seed for m in own),
        tasks={n: mean_and_deviation([m.final[n] for m in own]) for n in names},
        acc=mean_and_deviation([float(np.mean(m.matrix[-1])) for m in own]),
        bwt=mean_and_deviation([backward_transfer(m.matrix) for m in own]) if ordered else None,
        forgetting=(
            mean_and_deviation([_mean_forgetting(m.matrix) for m in own]) if ordered else None
        ),
        gap=(
            mean_and_deviation([float(np.mean(list(d.values()))) for d in differences])
            if differences
            else None
        ),
        gaps={n: mean_and_deviation([d[n] for d in differences]) for n in names if differences},
        bytes=mean_and_deviation([m.bytes for m in own]),
        of_one=mean_and_deviation([m.bytes / m.one_network for m in own]),
        of_all=mean_and_deviation([m.bytes / m.network_per_task for m in own]),
        seconds=mean_and_deviation([m.seconds for m in own]),
        measured=list(own),
    )


def _rows(matrix: np.ndarray) -> list[list[float]]:
    return [[float(value) for value in row if not np.isnan(value)] for row in matrix]
