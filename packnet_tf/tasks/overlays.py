"""The overlay of a task: its places in all packed weights, and its values there, as bytes."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from keras import ops

from packnet_tf.packing.bits import pack_places, unpack_places
from packnet_tf.packing.pruning import check_ratio
from packnet_tf.packing.weight import PackedWeight

_HEADER = 8  # bytes that hold the number of bytes of the places


def check_overlay(
    name: str,
    overlay: float,
    claim_ratio: float,
    seen: Sequence[int],
    total: int,
    has_owners: bool,
) -> float:
    """Refuses an overlay that a new task cannot have; returns it as a float.

    Args:
        name: the new task's name.
        overlay, claim_ratio: the user's values.
        seen: numbers of the earlier tasks that the task sees.
        total: number of packed weights.
        has_owners: whether the pack has tasks that own weights.

    Raises:
        ValueError: the message says why, and what to write instead.
    """
    share = check_share(name, overlay, claim_ratio)
    if not seen:
        why = "it sees no earlier task, whose weights it would override"
        remedy = (
            'Write reuse="all", or a list of names.'
            if has_owners
            else "Leave out overlay for the first task, or adopt the trunk first: "
            "net.adopt('base')."
        )
    elif round(share * total) == 0:
        why = f"overlay={overlay!r} is none of the {total:,} packed weights"
        remedy = "Write overlay=0.05 for a twentieth of them."
    else:
        return share
    raise _unusable(name, why, remedy)


def check_share(name: str, overlay: float, claim_ratio: float) -> float:
    """Refuses an overlay that a task cannot have in any pack; returns it as a float.

    Args:
        name: the task's name.
        overlay, claim_ratio: the user's values.

    Raises:
        ValueError: the message says why, and what to write instead.
    """
    share = check_ratio(overlay, "overlay")
    if share == 0:
        why = f"overlay={overlay!r} is no weight at all"
        raise _unusable(name, why, "Write overlay=0.05 for a twentieth of the packed weights.")
    if claim_ratio != 1.0:
        why = "such a task claims no free weights, and so it has no claim_ratio"
        raise _unusable(name, why, "Leave out one of the two.")
    return share


def _unusable(name: str, why: str, remedy: str) -> ValueError:
    return ValueError(f"Cannot add task '{name}' with an overlay: {why}. {remedy}")


def check_claimed(name: str, overlay: float, claimed: int, total: int) -> None:
    """Refuses to commit a task that claims more weights than its overlay allows.

    Args:
        name: the task's name.
        overlay: fraction of all packed weights that it may override, 0 to 1.
        claimed, total: numbers of claimed weights and of all packed weights.

    Raises:
        RuntimeError: it claims more, because it was not pruned.
    """
    if claimed > round(overlay * total):
        raise RuntimeError(
            f"Cannot commit task '{name}': it overrides {claimed / total:.1%} of the packed "
            f"weights, and its overlay is {overlay:.1%}. Call net.prune(0.0), which keeps the "
            "weights that changed most, train on, and call net.commit()."
        )


def overlay_of(weights: Iterable[PackedWeight]) -> bytes:
    """Returns the overlay of a task: the values of the weights that its model claims.

    Args:
        weights: the packed weights of the task's model, in the order of the trunk's structure.

    Returns:
        The size of the packed places in 8 bytes, the places, and the values.
    """
    masks, values = [], []
    for weight in weights:
        trainable, claim = map(ops.convert_to_numpy, weight.trained)
        masks.append(claim.reshape(-1) > 0)
        values.append(trainable.reshape(-1)[masks[-1]].tobytes())
    places = pack_places(np.concatenate(masks)).tobytes()
    return b"".join([len(places).to_bytes(_HEADER, "little"), places, *values])


def parts_of(
    overlay: bytes, weights: Sequence[PackedWeight]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the places and the values of an overlay.

    Args:
        overlay: what `overlay_of` returned.
        weights: the packed weights of the trunk, in the order of its structure.

    Returns:
        For each packed weight a flat bool array, True where the task overrides it, and the array of
        the values there.

    Raises:
        ValueError: the bytes do not fit the weights.
    """
    start = _HEADER + int.from_bytes(overlay[:_HEADER], "little")
    sizes = [math.prod(weight.owner.shape) for weight in weights]
    places = unpack_places(np.frombuffer(overlay[_HEADER:start], np.uint8), sum(sizes))
    masks = np.split(places, np.cumsum(sizes)[:-1])
    counts = [int(np.count_nonzero(mask)) for mask in masks]
    dtypes = [np.dtype(weight.packed.dtype) for weight in weights]
    ends = start + np.cumsum([n * dtype.itemsize for n, dtype in zip(counts, dtypes, strict=True)])
    if ends[-1] != len(overlay):
        raise ValueError(f"an overlay has {len(overlay)} bytes, but its places need {ends[-1]}")
    starts = [start, *ends[:-1]]
    values = [
        np.frombuffer(overlay, dtype, count, begin)
        for dtype, count, begin in zip(dtypes, counts, starts, strict=True)
    ]
    return masks, values


def assign_overlay(overlay: bytes, weights: Sequence[PackedWeight], number: int) -> None:
    """Assigns an overlay to the packed weights of a task's model.

    Args:
        overlay: what `overlay_of` returned.
        weights: the packed weights of the model.
        number: the number that marks the model's claim.

    Raises:
        ValueError: the bytes do not fit the weights.
    """
    for weight, mask, values in zip(weights, *parts_of(overlay, weights), strict=True):
        trainable, claim = weight.trained
        kernel = np.zeros(mask.size, values.dtype)
        kernel[mask] = values
        trainable.assign(kernel.reshape(trainable.shape))
        claim.assign((mask * number).astype("int32").reshape(claim.shape))
