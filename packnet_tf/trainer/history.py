"""What a run of the trainer measured: a table, and `history.json`."""

import json
import pathlib

from packnet_tf.backend.atomic import replacing
from packnet_tf.reporting.tables import text_table

MOMENTS = {"before the prune": "before_prune", "after it": "after_prune", "retrained": "retrained"}


class History(dict):
    """What happened to each task, by its name; prints as a table.

    A task's entry has `prune_ratio` (share of what it began with that was released), `epochs` (a
    list of dicts: `epoch`, `phase`, `learning_rate`, `loss`, metrics, their values on validation
    data as `val_...`, `sparsity`, `claimed`, `seconds`, `steps`, `examples_per_second`),
    `before_prune`, `after_prune` and `retrained` (dicts of loss and metrics on validation data),
    `test` (the same on test data), `capacity` (left after the task), `seconds`, and, with `Auto`,
    `rounds`. What was not given data to measure is an empty dict.
    """

    @classmethod
    def read(cls, path: pathlib.Path) -> "History":
        """The history in a file; an empty one where there is no file.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            return cls(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()
        except (ValueError, TypeError) as error:  # no JSON, or JSON of something else
            raise ValueError(
                f"'{path}' is damaged: {error}. Restore it from a backup, or delete it: what it "
                "says of the tasks that are packed is then lost, the tasks are not."
            ) from error

    def write(self, path: pathlib.Path) -> None:
        """Writes `history.json`."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self, indent=1) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        head = ["task", "prune_ratio", *MOMENTS, "test", "capacity left", "seconds"]
        rows = [
            [name, f"{entry['prune_ratio']:.3f}"]
            + [_score(entry[moment]) for moment in [*MOMENTS.values(), "test"]]
            + [f"{entry['capacity']:.1%}", f"{entry['seconds']:.0f}"]
            for name, entry in self.items()
        ]
        return text_table(head, rows)


def _score(values: dict) -> str:
    """The accuracy, or the first metric, or the loss: whatever there is."""
    if not values:
        return "-"
    name = next((name for name in values if "acc" in name), None)
    if name is not None:
        return f"{values[name]:.1%}"
    name = next((name for name in values if name != "loss"), "loss")
    return f"{name} {values[name]:.4g}"
