"""SHA-256 digests of what tasks own, by which a pack that was changed since is recognised."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from packnet_tf.packing.weight import PackedWeight


@dataclasses.dataclass(frozen=True)
class Digests:
    """Digests of what committed tasks have in the trunk.

    They take one pass over the weights, however many tasks there are. The digest of each task then
    says whose weights have changed.

    Attributes:
        weights: of every packed weight, in the order of the trunk's structure: a digest of its
            owners and of its owned values.
        shared: a digest of the unpacked weights, which tasks share or start from.
    """

    weights: tuple[str, ...] = ()
    shared: str = ""


def present_digests(weights: Iterable[PackedWeight], unpacked: Iterable[keras.Variable]) -> Digests:
    """Returns the digests of the weights as they are now.

    Args:
        weights: the packed weights, in the order of the trunk's structure.
        unpacked: see `PackState.unpacked_variables`.
    """
    return Digests(
        tuple(map(_committed_digest, weights)), digest_of(None, map(ops.convert_to_numpy, unpacked))
    )


def changed_part(
    before: Digests,
    now: Digests,
    weights: Mapping[str, PackedWeight],
    tasks: Mapping[str, tuple[int, str]],
) -> str | None:
    """Returns which committed weights have changed, for a message; None if none have.

    Args:
        before, now: what `present_digests` returned then and returns now.
        weights: the packed weights by path.
        tasks: by name, the numbers of the tasks that own weights, and their `owned_digests`.
    """
    pairs = zip(weights, before.weights, now.weights, strict=True)
    paths = [path for path, old, new in pairs if old != new]
    if paths:
        found = owned_digests(weights.values(), [number for number, _ in tasks.values()])
        known = zip(tasks.items(), found, strict=True)
        names = [name for (name, (_, old)), new in known if old != new]
        whose = f"the weights of task '{names[0]}'" if names else "weights"
        return f"{whose} in layer '{paths[0]}'"
    return None if before.shared == now.shared else "the weights that all tasks share"


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

    A task's digest does not depend on other tasks, nor on its number.

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
            trainable, claim = map(ops.convert_to_numpy, weight.trained)
            parts += [trainable, claim.astype(np.uint8)]  # some strategies hold it as int32
    return digest_of(None, parts)


def _committed_digest(weight: PackedWeight) -> str:
    owner, packed = map(ops.convert_to_numpy, (weight.owner, weight.packed))
    owner = owner.astype(np.uint8)  # some strategies hold it as int32
    # Selects the bits of owned values; a third of the time of `np.where` on random owners.
    return digest_of(None, (owner, packed.view(f"u{packed.itemsize}") * (owner > 0)))


def _bytes_of(array: np.ndarray) -> memoryview:
    # As bytes: hashlib takes no bfloat16.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
