"""What a comparison says in sentences: its verdict, its choices, and what is wrong."""

import pathlib
from collections.abc import Sequence

from packnet_tf.apps.research.definition import BETTER, DIVERGED, RIVALS, Comparison
from packnet_tf.apps.research.results.summary import Line
from packnet_tf.apps.research.running.worker import RESULT
from packnet_tf.apps.research.runs import Entry
from packnet_tf.backend.text import listed
from packnet_tf.reporting.quality import FLOOR

SMALL = 0.001  # accuracies closer than this are called equal


def verdict(comparison: Comparison, titled: Sequence[tuple[str, Line]]) -> str:
    """Says how packing compares with the baselines that were run.

    Args:
        comparison: the comparison.
        titled: its lines with their titles.
    """
    by_kind = {}
    kinds = {method.label: method.kind for method in comparison.methods}
    for title, line in titled:
        best = by_kind.get(kinds[line.label])
        if best is None or line.acc[0] > best[1].acc[0]:
            by_kind[kinds[line.label]] = (title, line)
    count = len(comparison.tasks)
    of_tasks = f" on average over {count} tasks" if count > 1 else ""
    if "packnet" not in by_kind:
        title, line = max(titled, key=lambda pair: pair[1].acc[0])
        return f"Best is {title}: {line.acc[0]:.1%} of test images right{of_tasks}."
    title, packed = by_kind["packnet"]
    packings = sum(kinds[line.label] == "packnet" for _, line in titled)
    best = f", the best of {packings} packed rows by test accuracy," if packings > 1 else ""
    said = [
        f"{title}{best} gets {packed.acc[0]:.1%} of test images right{of_tasks}, in "
        f"{packed.of_one[0]:.2f} times the bytes of one network."
    ]
    if "individual" in by_kind:
        line = by_kind["individual"][1]
        said.append(
            f"Individual networks, {line.of_one[0]:.2f} times, get {line.acc[0]:.1%}: "
            f"{_points(packed, line)}."
        )
    if "classifier_only" in by_kind:
        line = by_kind["classifier_only"][1]
        said.append(
            f"Linear heads on the frozen trunk get {line.acc[0]:.1%}: {_points(packed, line)}."
        )
    if "fine_tuning" in by_kind and packed.forgetting is not None and count > 1:
        lost = by_kind["fine_tuning"][1].forgetting[0]
        said.append(
            f"Packing forgets {100 * packed.forgetting[0]:.1f} points of earlier tasks, "
            f"fine-tuning one network in sequence {100 * lost:.1f}."
        )
    return " ".join(said)


def _points(packed: Line, other: Line) -> str:
    difference = packed.acc[0] - other.acc[0]
    if abs(difference) < SMALL:
        return "the same"
    return f"packing has {abs(100 * difference):.1f} points {'more' if difference > 0 else 'less'}"


def below_the_floor(comparison: Comparison, titled: Sequence[tuple[str, Line]]) -> list[str]:
    """Returns a warning for every method that a linear head beats, of those that should not be.

    Individual networks that are too weak make everything compared with them look better.
    """
    kinds = {method.label: method.kind for method in comparison.methods}
    heads = [line for _, line in titled if kinds[line.label] == "classifier_only"]
    said = []
    for title, line in titled if heads else ():
        if kinds[line.label] not in ("packnet", "individual", "guide", *RIVALS):
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
                f"{weak}. Train longer or at another learning rate; see "
                "docs/guides/low_accuracy.md."
            )
    return said


def linear_heads(titled: Sequence[tuple[str, Line]]) -> dict[str, list[str]]:
    """Returns sentences on the linear heads that are in place of what was trained, by the reason.

    Args:
        titled: the lines with their titles.

    Returns:
        Sentences by `BETTER`, which the methods' rules want, and by `DIVERGED`.
    """
    said: dict[str, list[str]] = {BETTER: [], DIVERGED: []}
    for title, line in titled:
        for why, sentences in said.items():
            tasks = {
                f"{task} (seed {m.entry.seed})" if len(line.seeds) > 1 else task: None
                for m in line.measured
                for task, reason in m.linear_heads.items()
                if reason == why
            }
            if tasks and why == DIVERGED:
                sentences.append(
                    f"WARNING: {title} diverged on {listed(tasks)}, and has the linear head there. "
                    "Gaps to it flatter packing. Give it a lower learning_rate."
                )
            elif tasks:
                sentences.append(
                    f"{title} has the linear head on {listed(tasks)}: training ended below it."
                )
    return said


def missing(entries: Sequence[Entry], folder: pathlib.Path) -> list[str]:
    """Returns a sentence per run without a result."""
    runs = {run.key: (e.label, run) for e in entries for run in e.runs}
    return [
        f"{label}: the run {key} has no result ({run.title})."
        for key, (label, run) in runs.items()
        if not (folder / key / RESULT).exists()
    ]


def chosen(titled) -> list[str]:
    """Returns a sentence per method with `choose`, on what validation images chose."""
    said = dict.fromkeys(
        f"{line.label}: validation images chose "
        + ", ".join(f"{name} {value}" for name, value in line.chosen.items())
        + "."
        for _, line in titled
        if line.chosen
    )
    return list(said)
