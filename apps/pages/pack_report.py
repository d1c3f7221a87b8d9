"""The report of a pack as a page."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from packnet_tf.apps.images.pixels import read_whole_image
from packnet_tf.apps.packs.plan import logs_folder
from packnet_tf.apps.packs.standing import sentence, shares, storage_table, tasks_table
from packnet_tf.apps.pages.figures import draw_confusion, draw_storage
from packnet_tf.apps.pages.measured import Measured, measure
from packnet_tf.apps.pages.page import Illustration, jpeg, svg, write_page
from packnet_tf.net import PackNet
from packnet_tf.reporting.colours import task_colours
from packnet_tf.reporting.history import History
from packnet_tf.reporting.history_plot import plot_history
from packnet_tf.reporting.plotting import plot_capacity
from packnet_tf.reporting.tables import Table
from packnet_tf.trainer.logs import HISTORY

FREE = "#dddddd"
THUMBNAIL = 192  # pixels, the longer side of a picture


def write_pack_report(
    path: str, net: PackNet, facts: dict, data: Sequence[str], model: str | None
) -> None:
    """Writes the report of a pack as one self-contained HTML file.

    Args:
        path: the file.
        net: the pack.
        facts: what `standing` returns for it.
        data, model: see `measure`.

    Raises:
        OSError, ValueError: see `measure`.
    """
    pack = pathlib.Path(facts["pack"])
    measured = list(measure(net, facts["pack"], data, model)) if data or model else []
    history, lost = training_history(pack, facts)
    found = shares(facts)
    write_page(
        path,
        "pack_report",
        title=pack.name,
        lead=sentence(facts),
        still_open=facts["open"],
        warnings=facts["shortfalls"],
        tasks=tasks_table(facts, full=True),
        bar=list(zip(found, found.values(), [*task_colours(len(found) - 1), FREE], strict=True)),
        curves=_curves(history) if history else None,
        lost=lost,
        layers=Illustration(
            "Owners per layer", "Who owns which share of every layer.", svg(plot_capacity(net))
        ),
        storage=Illustration(
            "Storage",
            "Bytes of weights; files add the configuration of layers.",
            svg(draw_storage(facts)),
        ),
        storage_table=storage_table(facts),
        measured=[_section(one) for one in measured],
        made=_made(facts),
    )


def training_history(pack: pathlib.Path, facts: dict) -> tuple[History, list[str]]:
    """Reads what training left of the tasks of a pack.

    Args:
        pack: the pack's file.
        facts: what `standing` returns for it.

    Returns:
        The histories by task, and a sentence per task whose history belongs to other training.
    """
    found, lost = History(), []
    for task in facts["tasks"]:
        name = task["task"]
        path = logs_folder(pack) / name / HISTORY
        entry = History.read(path)
        if not entry:
            continue
        reached = entry.get("retrained", {}).get("accuracy")
        if reached == task["results"].get("retrained"):
            found[name] = dict(entry)
        else:
            lost.append(f"'{path}' is of another training of '{name}', so it is left out.")
    return found, lost


def _curves(history: History) -> Illustration:
    return Illustration(
        "Learning curves",
        "Accuracy and loss of each task against epochs; a dotted line marks the prune.",
        svg(plot_history(history)),
    )


def _section(measured: Measured) -> dict:
    """Returns what the page shows of a task's answers."""
    classes = measured.images.classes
    figure = draw_confusion(classes, measured.confusion)
    return {
        "task": measured.task,
        "source": measured.source,
        "folder": str(measured.images.folder),
        "count": len(measured.answers.images),
        "accuracy": f"{measured.accuracy:.1%}",
        "notes": [*measured.images.notes, *measured.answers.failed],
        "confusion": Illustration(
            f"Confusion matrix of {measured.task}",
            "Images by right class (rows) and answer (columns); shades are shares of a row.",
            svg(figure),
        ),
        "worst": [
            {
                "source": jpeg(_thumbnail(one.path)),
                "name": pathlib.Path(one.path).name,
                "right": classes[one.label],
                "answer": classes[one.classes[0]],
                "probability": f"{one.probabilities[0]:.0%}",
            }
            for one in measured.worst
        ],
    }


def _thumbnail(path: str) -> np.ndarray:
    image = Image.fromarray(read_whole_image(path, 3))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def _made(facts: dict) -> Table:
    """Returns how the pack was made: its policy, its notes, and where its tasks' images are."""
    rows = [[f"policy: {name}", str(value)] for name, value in facts["policy"].items()]
    rows += [[f"note: {name}", value] for name, value in facts["notes"].items()]
    for task in facts["tasks"]:
        about = [f"{k} {v}" for k, v in task["metadata"].items() if k in ("data", "epochs")]
        if task["sees"]:
            about.append(f"sees {', '.join(task['sees'])}")
        if about:
            rows.append([f"task: {task['task']}", "; ".join(about)])
    return Table(["of the pack", ""], rows)
