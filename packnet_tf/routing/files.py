"""Routers as `.npz` files: arrays and a JSON text, without pickle."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from packnet_tf.backend.archives import DAMAGED, check_expansion
from packnet_tf.backend.atomic import replacing
from packnet_tf.backend.json_files import parse_json
from packnet_tf.backend.text import quoted
from packnet_tf.backend.types import AnyPath
from packnet_tf.routing.gaussians import TaskGaussian

FORMAT = 1
ARRAYS = {"mean": np.float16, "directions": np.float16, "variances": np.float32}


def write(path: AnyPath, facts: Mapping[str, Any], gaussians: Mapping[str, TaskGaussian]) -> None:
    """Writes a router atomically.

    Args:
        path: the file; its name ends in `.npz`.
        facts: JSON values by name.
        gaussians: by task.

    Raises:
        ValueError: the name does not end in `.npz`.
        OSError: the file cannot be written.
    """
    if pathlib.Path(path).suffix != ".npz":
        raise ValueError(
            f"Cannot save the router as '{path}': expected a name that ends in .npz. Write "
            f"router.save('{pathlib.Path(path).with_suffix('.npz')}')."
        )
    tasks: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, (name, gaussian) in enumerate(gaussians.items()):
        numbers = {key: x for key, x in vars(gaussian).items() if key not in ARRAYS}
        tasks.append({"task": name, **numbers})
        arrays |= {f"{number}_{key}": getattr(gaussian, key) for key in ARRAYS}
    text = json.dumps({"format": FORMAT, **facts, "tasks": tasks})
    arrays["router"] = np.frombuffer(text.encode(), np.uint8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def read(path: AnyPath) -> tuple[dict[str, Any], dict[str, TaskGaussian]]:
    """Reads what `write` wrote: the facts, and the Gaussians by task.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not a router.
    """
    try:
        check_expansion(pathlib.Path(path))
        with np.load(path, allow_pickle=False) as arrays:
            facts = parse_json(arrays["router"].tobytes())
            if facts.pop("format") != FORMAT:
                raise ValueError("another version of packnet_tf wrote it")
            gaussians = {
                entry.pop("task"): _gaussian(arrays, number, entry)
                for number, entry in enumerate(facts.pop("tasks"))
            }
            facts["commits"] = {name: str(facts["commits"][name]) for name in gaussians}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no router '{path}'. router.save writes one, of packnet_tf.TaskRouter.fit("
            "net, {task: images})."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, *DAMAGED) as error:
        raise ValueError(
            f"'{path}' is not a router, or is damaged ({quoted(error)}). Restore it from a copy, "
            "or fit and save it again."
        ) from error
    return facts, gaussians


def _gaussian(arrays: Mapping[str, np.ndarray], number: int, numbers: dict) -> TaskGaussian:
    found: dict[str, Any] = {key: arrays[f"{number}_{key}"] for key in ARRAYS}
    size, count = found["directions"].shape
    shapes = {"mean": (size,), "directions": (size, count), "variances": (count,)}
    for key, array in found.items():
        if array.shape != shapes[key] or array.dtype != ARRAYS[key]:
            raise ValueError(f"its {key} are {array.dtype} of shape {array.shape}")
    gaussian = TaskGaussian(**found, **numbers)
    values = [getattr(gaussian, field.name) for field in dataclasses.fields(gaussian)]
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError("it has numbers that are not finite")
    return gaussian
