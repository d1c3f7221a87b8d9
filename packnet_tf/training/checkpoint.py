"""Checkpoints of an unfinished task: one file, written atomically."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from packnet_tf.backend.archives import check_expansion
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import quoted
from packnet_tf.packing.weight import assign_values, values_of


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that training changes: weights, claims, seeds, optimizer state.

    Args:
        model: a compiled model whose optimizer is built.
    """
    return [*model.variables, *model.optimizer.variables]


def take(model: keras.Model) -> list[np.ndarray]:
    """Copies the values of the variables that training changes.

    Args:
        model: as for `variables_of`.

    Returns:
        A list of arrays, of the variables' shapes and dtypes.
    """
    return values_of(variables_of(model))


def put_back(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Assigns values to the variables that training changes.

    Args:
        model: the same model, or one of the same structure.
        values: what `take` returned.
    """
    assign_values(variables_of(model), values)


def save(path: pathlib.Path, facts: dict[str, Any], values: list[np.ndarray]) -> None:
    """Writes JSON values and arrays to an `.npz` file.

    Args:
        path: the file to write.
        facts: JSON values by name.
        values: arrays of any shape and dtype.
    """
    # As bytes, with their dtypes in `facts`: `.npz` files cannot hold bfloat16.
    dtypes, shapes = [value.dtype.name for value in values], [value.shape for value in values]
    text = json.dumps({**facts, "dtypes": dtypes, "shapes": shapes})
    arrays = [np.frombuffer(value.tobytes(), np.uint8) for value in values]
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, *arrays, facts=np.array(text))


def load(path: pathlib.Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads what `save` wrote; nothing in the file is executed.

    Args:
        path: the file to read.

    Returns:
        The JSON values and the arrays.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        check_expansion(path)
        with np.load(path, allow_pickle=False) as file:
            facts = parse_json(str(file["facts"]))
            described = enumerate(zip(facts["dtypes"], facts["shapes"], strict=True))
            return facts, [
                np.frombuffer(file[f"arr_{i}"].tobytes(), np.dtype(dtype)).reshape(shape)
                for i, (dtype, shape) in described
            ]
    except Exception as error:  # zipfile, json and NumPy raise different types
        raise ValueError(
            f"'{path}' is damaged: {quoted(error)}. Delete it: the task it belongs to "
            "then starts again."
        ) from error
