"""`Exported`: what an export has written, as a dict and as a table."""

from collections.abc import Callable, Mapping
from typing import Any

from packnet_tf.backend.text import printable
from packnet_tf.export.options import LIMITS
from packnet_tf.reporting.tables import AsTable, Table, count_bytes

LOSS = 0.01  # accuracy that a lower precision may cost without a warning


class Exported(AsTable, dict):
    """The manifest of exported files; prints as a table, and notebooks show it as one.

    It is a dict with the contents of `manifest.json`, see docs/how_it_works/exports.md.

    Example:
        >>> exported = packnet_tf.export.export_all(net, "onnx/", verbose=False)
        >>> print(exported)
        >>> exported["tasks"][0]["file"]
        'model_task1.onnx'
    """

    def _table(self) -> Table:
        columns: dict[str, Callable[[dict], str]] = {
            "file": lambda task: task["file"],
            "task": lambda task: task["task"],
            "size": lambda task: count_bytes(task["bytes"]),
            "precision": lambda task: task["precision"],
            "difference to Keras": lambda task: f"{task['relative_difference']:.1e}",
        }
        tasks = self["tasks"]
        if any("evaluated" in task for task in tasks):
            columns["accuracy"] = lambda task: _share(task, "accuracy")
            columns["in Keras"] = lambda task: _share(task, "keras_accuracy")
            columns["same answer"] = lambda task: _share(task, "agreement")
        rows = [[cell(task) for cell in columns.values()] for task in tasks]
        return Table(list(columns), rows, remarks=self._remarks())

    @property
    def warnings(self) -> list[str]:
        """A sentence for each file whose accuracy or outputs are far from its task in Keras."""
        far = [
            f"WARNING: task '{task['task']}' in {precision} differs from Keras by "
            f"{difference:.1%} of its largest output, more than the {LIMITS[precision]:.0%} that "
            f"packnet verify accepts. {_remedy(task)}"
            for task in self["tasks"]
            if (precision := task["precision"]) in LIMITS
            and (difference := task["relative_difference"]) > LIMITS[precision]
        ]
        return far + [
            f"WARNING: task '{task['task']}' in {task['precision']} gets "
            f"{found['accuracy']:.1%} of {found['images']} images right, and "
            f"{found['keras_accuracy']:.1%} in Keras. {_remedy(task)}"
            for task in self["tasks"]
            if (found := task.get("evaluated"))
            and found.get("keras_accuracy", 0.0) - found["accuracy"] > LOSS + 1e-9
        ]

    def _remarks(self) -> list[str]:
        """Returns sentences below the table: warnings, and what the tasks share."""
        return [*self.warnings, *self._shared()]

    def _shared(self) -> list[str]:
        shared = self.get("shared", [])
        if not shared:
            return []
        whole = sum(file["bytes"] for file in [*shared, *self["tasks"]])
        parts = ", ".join(f"{file['file']} ({count_bytes(file['bytes'])})" for file in shared)
        return [
            f"Shared: {parts}. In all {count_bytes(whole)}.",
            f"Written: {', '.join(self['changed'])}.",
        ]


def say_written(entry: Mapping[str, Any], verbose: bool) -> None:
    """Prints a line for a file that is written and checked, and for each of its further files.

    Args:
        entry: the file's entry in the manifest.
        verbose: False prints nothing.
    """
    if not verbose:
        return
    facts = [count_bytes(entry["bytes"])]
    if "task" in entry:
        difference = entry["relative_difference"]
        facts = [f"task '{entry['task']}'", *facts, f"differs from Keras by {difference:.1e}"]
    print(printable(f"{entry['file']}: {', '.join(facts)}"), flush=True)
    for other in entry.get("external", []):
        print(printable(f"{other['file']}: {count_bytes(other['bytes'])}"), flush=True)


def _remedy(task: dict) -> str:
    if task["precision"] != "int8":
        return "Export it as float32."
    more = {None: "", False: ", or calibrate it", True: ", or calibrate with more images"}
    calibrated: bool | None = task.get("calibrated")  # bundles are not
    return f"Export it as float16 or float32{more[calibrated]}."


def _share(task: dict, key: str) -> str:
    found = task.get("evaluated", {})
    return f"{found[key]:.1%}" if key in found else ""
