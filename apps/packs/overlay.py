"""Which tasks override weights, in place of owning some."""

import contextlib
from typing import Literal

Overlay = float | Literal["auto"] | None  # as `packnet_tf.Task` takes it
SHARE = 0.05  # of a task that finds too few free weights
# The fraction of the packed weights below which a task's own ones are too few: with 2 % and less, a
# task of 43 classes gets 4 to 8 points less than with an overlay; see docs/measured/overlays.md.
LEAST_OWNED = 0.02
WHEN_FULL = "when_full"
WAYS = (WHEN_FULL, "auto", "none")  # values of the setting `overlay` other than a share


def overlay_setting(overlay: str | float) -> Overlay:
    """Returns what the setting `overlay` gives to all tasks; None for `when_full` and `none`.

    Raises:
        ValueError: it is neither one of `WAYS` nor a share.
    """
    if overlay in WAYS:
        return "auto" if overlay == "auto" else None
    with contextlib.suppress(ValueError):
        if 0 < float(overlay) <= 1:
            return float(overlay)
    raise ValueError(
        f"overlay={overlay} is none of {', '.join(WAYS)} and no fraction of the packed weights. "
        "Write overlay=0.05 for a twentieth."
    )


def owned(prune: object, free: float, claim_ratio: float = 1.0) -> float:
    """Returns the fraction of the packed weights that a task will own, 0 to 1.

    Args:
        prune: its ratio or `Auto`; `Auto`, whose ratio is not known yet, counts as 0.
        free: fraction of the packed weights that is free before.
        claim_ratio: fraction of the free weights that it claims.
    """
    return free * claim_ratio * (1.0 - prune if isinstance(prune, float) else 1.0)


def overlay_of(
    setting: str | float, prune: object, free: float, sees: bool, claim_ratio: float = 1.0
) -> Overlay:
    """Returns the overlay of a task.

    Args:
        setting: see `Plan.overlay`.
        prune, free, claim_ratio: as for `owned`.
        sees: whether it sees earlier tasks, whose weights it could override.
    """
    if setting != WHEN_FULL:
        return overlay_setting(setting)
    return SHARE if sees and owned(prune, free, claim_ratio) < LEAST_OWNED else None


def overlay_after(setting: str | float, overlay: Overlay, sees: bool) -> float | None:
    """Returns the overlay to try for a task that ended below its linear head; None for none.

    Args:
        setting, sees: as for `overlay_of`.
        overlay: the overlay it had; one with weights of its own has None.
    """
    return SHARE if setting == WHEN_FULL and sees and overlay is None else None
