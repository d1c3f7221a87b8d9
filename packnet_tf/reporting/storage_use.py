"""Counts the bytes of a pack's values by purpose."""

import math
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from packnet_tf.packing import bits


def storage_use(
    packed: Iterable[keras.Variable],
    owners: Iterable[keras.Variable],
    others: Iterable[keras.Variable],
    tasks: dict[str, tuple[int, int]],
) -> dict:
    """Counts the bytes of a pack's stored values and of separate networks.

    Args:
        packed: the packed variables.
        owners: the owner variables, which are stored bit-packed.
        others: the trunk's other variables.
        tasks: dict from task name to a pair (bytes of its own values, bytes of its head).

    Returns:
        A dict of bytes: `packed`, `owners`, `trunk` (its unpacked weights), `tasks` (dict from task
        name to the bytes of its own values and head), `one_network` (a plain trunk with the first
        task's head), `separate_networks` (a plain network per task). File formats add a little.
    """
    shared, rest = sum(map(bytes_in, packed)), sum(map(bytes_in, others))
    heads = [head for _, head in tasks.values()]
    return {
        "packed": shared,
        "owners": sum(bits.pack(ops.convert_to_numpy(owner)).nbytes for owner in owners),
        "trunk": rest,
        "tasks": {name: own + head for name, (own, head) in tasks.items()},
        "one_network": shared + rest + (heads[0] if heads else 0),
        "separate_networks": len(heads) * (shared + rest) + sum(heads),
    }


def bytes_in(variable: keras.Variable) -> int:
    """Returns the bytes of a variable's values."""
    return math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
