"""Which tasks override weights, in place of owning some."""

from collections.abc import Sequence
from typing import Literal

from packnet_tf.packing.pruning import check_ratio

Overlay = float | Literal["auto"] | None  # as `packnet_tf.Task` takes it
SHARE = 0.05  # of a task that finds too few free weights
# The fraction of the packed weights below which a task's own ones are too few: with 2 % and less, a
# task of 43 classes gets 4 to 8 points less than with an overlay; see docs/overlays.md.
LEAST_OWNED = 0.02
WAYS = ("when_full", "auto", "none")  # values of the setting `overlay` other than a share


def overlay_setting(overlay: str | float) -> Overlay:
    """Returns what the setting `overlay` gives to all tasks; None for `when_full` and `none`.

    Raises:
        ValueError: it is neither one of `WAYS` nor a share.
    """
    if overlay in WAYS:
        return "auto" if overlay == "auto" else None
    try:
        return check_ratio(float(overlay), "overlay")
    except ValueError:
        raise ValueError(
            f"overlay={overlay} is none of {', '.join(WAYS)} and no fraction of the packed "
            "weights. Write overlay=0.05 for a twentieth."
        ) from None


def overlay_of(
    setting: str | float, prune: object, free: float, reuse: str, claim_ratio: float = 1.0
) -> Overlay:
    """Returns the overlay of a task.

    Args:
        setting: see `Plan.overlay`.
        prune: the task's ratio or `Auto`; `Auto`, whose ratio is not known yet, counts as 0.
        free: fraction of the packed weights that is free, 0 to 1.
        reuse: see `base.reused`.
        claim_ratio: fraction of the free weights that it would claim.
    """
    if setting != "when_full":
        return overlay_setting(setting)
    if reuse == "none":  # it sees no weights that it could override
        return None
    ratio = prune if isinstance(prune, float) else 0.0
    return SHARE if free * claim_ratio * (1.0 - ratio) < LEAST_OWNED else None


def shared_out(
    setting: str | float, prunes: Sequence, free: float, reuse: str
) -> tuple[list[float], list[int]]:
    """Plans which tasks own weights.

    Args:
        setting, reuse: as for `overlay_of`.
        prunes: the ratio of each task.
        free: fraction of the packed weights that is free before, 0 to 1.

    Returns:
        The ratios of the tasks that own weights, and the positions of the others.
    """
    owning, others = [], []
    for place, ratio in enumerate(prunes):
        if overlay_of(setting, ratio, free, reuse) is None:
            owning.append(ratio)
            free *= ratio
        else:
            others.append(place)
    return owning, others
