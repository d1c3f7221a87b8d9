"""Plots the loss and the accuracy of tasks against their epochs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packnet_tf.backend.types import AnyPath
from packnet_tf.reporting.colours import task_colours
from packnet_tf.reporting.history import main_metric
from packnet_tf.reporting.plotting import need_matplotlib

if TYPE_CHECKING:
    import keras
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_TRAINING, _VALIDATION, _TEST, _LINEAR = task_colours(4)
_PRUNE = "#666666"
_COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class _Curves:
    """What a panel shows.

    Attributes:
        title: the task's name, or "".
        epochs: dicts of an epoch's numbers.
        prune: 1-based epoch before which the retraining begins; None if none does.
        marks: horizontal lines, by the name of the number and that of the line.
    """

    title: str
    epochs: Sequence[Mapping[str, Any]]
    prune: int | None
    marks: Mapping[str, Mapping[str, float]]


def plot_history(
    history: "Mapping | keras.callbacks.History", path: AnyPath | None = None
) -> "Figure":
    """Draws a panel per task: accuracy and loss on training and validation data against epochs.

    A vertical line marks the prune: the begin of the retraining, or, in what `fit` returns, the
    first epoch with the final sparsity. Horizontal lines mark the accuracy on test data, and that
    of a linear head on the frozen trunk (`Task(reference=...)`), where they are known.

    Args:
        history: what `PackTrainer.fit` returns, or one task's entry of it; or what `model.fit`
            returns, or its dict `history`.
        path: file to write; its suffix sets the format (`.png`, `.svg`, `.pdf`). None: no file.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `history` is none of these, or has no task.

    Example:
        >>> history = packnet_tf.PackTrainer(net, epochs=2, retrain_epochs=1).fit(
        ...     [packnet_tf.Task("birds", head, train, validation)])
        >>> figure = packnet_tf.plot_history(history, "history.png")
    """
    need_matplotlib()
    from packnet_tf.reporting.figures import Picture, legend, save

    panels = _panels(history)
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Picture(figsize=(max(5.0, 4.0 * columns), 0.8 + 4.0 * rows), layout="constrained")
    explained: dict[str, Artist] = {}
    for panel, place in zip(
        panels, figure.subfigures(rows, columns, squeeze=False).flat, strict=False
    ):
        _draw(place, panel, explained)
    legend(figure, list(explained.items()))
    save(figure, path, "plot_history")
    return figure


def _draw(place: Any, panel: _Curves, explained: "dict[str, Artist]") -> None:
    """Draws a panel: the accuracy, or another metric, above the loss."""
    from packnet_tf.reporting.figures import as_text, shortened

    names = list(dict.fromkeys(name for epoch in panel.epochs for name in epoch))
    metric = main_metric(names)
    shown = ["loss"] if metric is None else [metric, "loss"]
    axes = place.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    axes[0].set_title(as_text(shortened(panel.title)), fontsize=10)
    axes[-1].set_xlabel("epoch")
    for axis, name in zip(axes, shown, strict=True):
        axis.set_ylabel(name)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#EEEEEE")
        for label, key, colour in (
            ("training", name, _TRAINING),
            ("validation", f"val_{name}", _VALIDATION),
        ):
            points = [(e["epoch"] + 1, e[key]) for e in panel.epochs if key in e]
            if points:
                explained[label] = axis.plot(*zip(*points, strict=True), ".-", color=colour)[0]
        if panel.prune is not None:
            explained["prune"] = axis.axvline(panel.prune - 0.5, color=_PRUNE, linestyle=":")
        for label, colour in (("test", _TEST), ("linear head", _LINEAR)):
            value = panel.marks[label].get(name)
            if value is not None:
                explained[label] = axis.axhline(value, color=colour, linestyle="--")
        axis.xaxis.get_major_locator().set_params(integer=True)


def _panels(history: Any) -> list[_Curves]:
    """Returns the panels of a history in any form.

    Raises:
        ValueError: it has none of the known forms, or no task.
    """
    if isinstance(getattr(history, "history", None), Mapping):  # of Keras
        return [_of_fit(history.history, history.epoch)]
    if isinstance(history, Mapping) and history:
        values = list(history.values())
        if isinstance(history.get("epochs"), Sequence):
            return [_of_task("", history)]
        if all(isinstance(value, Mapping) and "epochs" in value for value in values):
            return [_of_task(name, entry) for name, entry in history.items()]
        if all(isinstance(value, Sequence) and not isinstance(value, str) for value in values):
            return [_of_fit(history, range(len(values[0])))]
    what = "an empty one" if history == {} else f"a {type(history).__name__} of another form"
    raise ValueError(
        "plot_history draws the history that PackTrainer.fit or model.fit returns, or one task's "
        f"entry; got {what}. Write packnet_tf.plot_history(trainer.fit(tasks))."
    )


def _of_task(name: str, entry: Mapping) -> _Curves:
    epochs = entry["epochs"]
    retraining = [epoch["epoch"] + 1 for epoch in epochs if epoch["phase"] == "retraining"]
    reference = entry.get("reference", {})
    linear = {"accuracy": reference["linear_head"]} if "linear_head" in reference else {}
    marks = {"test": entry.get("test", {}), "linear head": linear}
    return _Curves(name, epochs, min(retraining, default=None), marks)


def _of_fit(logs: Mapping[str, Sequence], numbers: Sequence[int]) -> _Curves:
    # A metric that was added later has fewer values: they are those of the last epochs.
    epochs: list[dict[str, Any]] = [{"epoch": number} for number in numbers]
    for name, values in logs.items():
        for epoch, value in zip(reversed(epochs), reversed(values), strict=False):
            epoch[name] = float(value)
    sparsities = [epoch["sparsity"] for epoch in epochs if "sparsity" in epoch]
    prune = None
    if sparsities and sparsities[-1] > 0:
        prune = next(e["epoch"] + 1 for e in epochs if e.get("sparsity") == sparsities[-1])
    return _Curves("", epochs, prune, {"test": {}, "linear head": {}})
