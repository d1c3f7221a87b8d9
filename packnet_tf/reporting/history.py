"""The measurements of a trainer's run: a table, and `history.json`."""

import json
import pathlib
from collections.abc import Iterable

from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import quoted
from packnet_tf.reporting.tables import AsTable, Table

MOMENTS = {"before the prune": "before_prune", "after it": "after_prune", "retrained": "retrained"}
# The numbers of an epoch that are no metrics.
NO_METRICS = {
    "epoch", "phase", "learning_rate", "loss", "sparsity", "claimed", "seconds", "steps",
    "examples_per_second",
}  # fmt: skip


class History(AsTable, dict):
    """The measurements of each task, by name; prints as a table.

    A task's entry has these keys:

    - `prune_ratio`: fraction of the initial claim that was released.
    - `epochs`: a list of dicts with `epoch`, `phase`, `learning_rate`, `loss`, the metrics, the
      loss and metrics on validation data as `val_...`, `sparsity`, `claimed`, `seconds`, `steps`
      and `examples_per_second`.
    - `before_prune`, `after_prune`, `retrained`: dicts of loss and metrics on validation data.
    - `test`: the same on test data.
    - `reference`: accuracies to compare the task with, those of `Task(reference=...)`.
    - `capacity`: the free fraction after the task, 0 to 1.
    - `seconds`: time for the task's epochs.
    - `rounds`: with `Auto` or `overlay="auto"`, the rounds of the search: dicts with `sparsity`,
      `after_prune` (loss and metrics), `retrained` (the metric that judges), `epochs` and `kept`.

    A dict of measurements is empty if the task had no data for it.
    """

    @classmethod
    def read(cls, path: pathlib.Path) -> "History":
        """Reads a history from a file; returns an empty one if there is no file.

        Args:
            path: the file to read.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            return cls(parse_json(path.read_text(encoding="utf-8"))) if path.exists() else cls()
        except (ValueError, TypeError) as error:  # not JSON, or JSON of another type
            raise ValueError(
                f"'{path}' is damaged: {quoted(error)}. Restore it from a backup, or delete it: "
                "the measurements of packed tasks are then lost, but the tasks are not."
            ) from error

    def write(self, path: pathlib.Path) -> None:
        """Writes the history to a JSON file.

        Args:
            path: the file to write.
        """
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self, indent=1) + "\n", encoding="utf-8")

    def _table(self) -> Table:
        head = ["task", "prune_ratio", *MOMENTS, "test", "capacity left", "seconds"]
        rows = [
            [name, f"{entry['prune_ratio']:.3f}"]
            + [_score(entry[moment]) for moment in [*MOMENTS.values(), "test"]]
            + [f"{entry['capacity']:.1%}", f"{entry['seconds']:.0f}"]
            for name, entry in self.items()
        ]
        return Table(head, rows)


def main_metric(names: Iterable[str]) -> str | None:
    """Returns the name of the accuracy, or else of the first metric; None if there is none.

    Args:
        names: the keys of an epoch or of a dict of measurements.
    """
    metrics = [n for n in names if n not in NO_METRICS and not n.startswith("val_")]
    return next((name for name in metrics if "acc" in name), next(iter(metrics), None))


def _score(values: dict) -> str:
    """Formats the accuracy, or else the first metric, or else the loss."""
    if not values:
        return "-"
    name = main_metric(values) or "loss"
    return f"{values[name]:.1%}" if "acc" in name else f"{name} {values[name]:.4g}"
