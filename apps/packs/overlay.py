"""Which tasks of `packnet train` override weights, in place of owning some."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from packnet_tf.packing.pruning import check_ratio
from packnet_tf.planning import LEAST_OWNED

if TYPE_CHECKING:
    from packnet_tf.apps.packs.plan import Plan

Overlay = float | Literal["auto"] | None  # as `packnet_tf.Task` takes it
WAYS = ("when_full", "auto", "none")  # values of the setting `overlay` other than a share


def overlay_setting(overlay: str) -> Overlay:
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
            f"--overlay={overlay} is none of {', '.join(WAYS)} and no fraction of the packed "
            "weights. Write --overlay=0.05 for a twentieth."
        ) from None


def overlay_of(plan: "Plan", prune: object, free: float) -> Overlay:
    """Returns the overlay of a task.

    Args:
        plan: the settings of the command.
        prune: the task's ratio or `Auto`; `Auto`, whose ratio is not known yet, counts as 0.
        free: fraction of the packed weights that is free, 0 to 1.
    """
    if plan.overlay != "when_full":
        return overlay_setting(plan.overlay)
    if plan.reuse == "none":  # it sees no weights that it could override
        return None
    ratio = prune if isinstance(prune, float) else 0.0
    return "auto" if free * plan.claim_ratio * (1.0 - ratio) < LEAST_OWNED else None


def shared_out(plan: "Plan", prunes: Sequence, free: float) -> tuple[list[float], list[int]]:
    """Plans which tasks own weights.

    Args:
        plan: the settings of the command.
        prunes: the ratio or `Auto` of each task.
        free: fraction of the packed weights that is free before, 0 to 1.

    Returns:
        The ratios of the tasks that own weights, and the positions of the others.
    """
    owning, others = [], []
    for place, prune in enumerate(prunes):
        if overlay_of(plan, prune, free) is None:
            owning.append(prune)
            free *= prune if isinstance(prune, float) else 0.0
        else:
            others.append(place)
    return owning, others
