"""SHA-256 digests of what tasks own, by which a pack that was changed since is recognised."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from packnet_tf.packing.weight import PackedWeight


def digest_of(facts: Any, parts: Iterable[bytes | np.ndarray] = ()) -> str:
    """Returns the SHA-256 of JSON values, then of arrays or bytes, in hexadecimal.

    Args:
        facts: JSON values; tuples count as lists, and the order of keys does not matter.
        parts: bytes, or arrays of any shape and dtype, of which the values count.

    Example:
        >>> digest_of({"a": (1, 2)}) == digest_of({"a": [1, 2]})
        True
    """
    plain = json.loads(json.dumps(facts))
    found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for part in parts:
        found.update(part if isinstance(part, bytes) else _bytes_of(part))
    return found.hexdigest()


def owned_digests(weights: Iterable[PackedWeight], tasks: Sequence[int]) -> list[str]:
    """Returns a digest of the places and values of the weights that each task owns.

    A task's digest does not depend on other tasks.

    Args:
        weights: the packed weights, in the order of the trunk's structure.
        tasks: numbers of the tasks.
    """
    found = {task: hashlib.sha256() for task in tasks}
    for weight in weights:
        owner, packed = map(ops.convert_to_numpy, (weight.owner, weight.packed))
        for task, digest in found.items():
            places = owner == task
            digest.update(_bytes_of(np.packbits(places)))
            digest.update(_bytes_of(packed[places]))
    return [digest.hexdigest() for digest in found.values()]


def shared_digest(variables: Sequence[keras.Variable]) -> str:
    """Returns a digest of the unpacked weights of the trunk, which tasks share or start from.

    Args:
        variables: see `PackState.unpacked_variables`.
    """
    return digest_of(None, map(ops.convert_to_numpy, variables))


def unowned_digest(weights: Iterable[PackedWeight]) -> str:
    """Returns a digest of what no task owns yet: restart values, and what an open task trains.

    Args:
        weights: the packed weights of the store, in the order of its structure.
    """
    parts: list[np.ndarray] = []
    for weight in weights:
        owner, packed = map(ops.convert_to_numpy, (weight.owner, weight.packed))
        parts.append(packed[owner == 0])
        if weight.claim is not None and weight.claimed():
            parts += map(ops.convert_to_numpy, weight.trained)
    return digest_of(None, parts)


def _bytes_of(array: np.ndarray) -> memoryview:
    # As bytes: hashlib takes no bfloat16.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
