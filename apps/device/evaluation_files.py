"""Writes an evaluation to a folder: a confusion matrix, a row per image, and the scores."""

import csv
import json
import pathlib
from collections.abc import Sequence

from packnet_tf.apps.device.evaluation import Answer, confusion_matrix
from packnet_tf.backend.atomic import replacing

CONFUSION, IMAGES, SCORES = "confusion.csv", "images.csv", "evaluation.json"


def write_evaluation(
    directory: str, answers: Sequence[Answer], classes: Sequence[str], facts: dict
) -> None:
    """Writes `confusion.csv`, `images.csv` and `evaluation.json`; creates the folder.

    Args:
        directory: the folder.
        answers: the answers to the images.
        classes: names of the classes, by label.
        facts: the scores, as JSON values.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    matrix = confusion_matrix(answers, len(classes))
    rows = [[name, *map(int, row)] for name, row in zip(classes, matrix, strict=True)]
    _write_rows(folder / CONFUSION, [["right class / answer", *classes], *rows])
    head = ["image", "class", "answer", "probability", "right", "probability of its class"]
    _write_rows(folder / IMAGES, [head, *(_row(one, classes) for one in answers)])
    with replacing(folder / SCORES) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _row(answer: Answer, classes: Sequence[str]) -> list:
    best, chances = answer.classes[0], dict(zip(answer.classes, answer.probabilities, strict=True))
    own = chances.get(answer.label)  # None: not among the most probable ones
    return [
        answer.path,
        classes[answer.label],
        classes[best],
        f"{chances[best]:.6f}",
        int(best == answer.label),
        "" if own is None else f"{own:.6f}",
    ]


def _write_rows(path: pathlib.Path, rows: Sequence[Sequence]) -> None:
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)
