"""How the capacity of a trunk divides among tasks."""

import dataclasses
import numbers
from collections.abc import Sequence

from packnet_tf.pruning import check_ratio
from packnet_tf.tables import text_table

LEAST_SHARE = 0.5  # below it the learning rate rises no further


def equal_shares(num_tasks: int) -> list[float]:
    """Pruning ratios that give every task the same share of the trunk.

    Task t of T claims what the tasks before it left, T - t + 1 shares, and releases all but one.

    Args:
        num_tasks: how many tasks there will be, T.

    Returns:
        One prune_ratio per task, (T - t) / (T - t + 1); the last is 0.

    Raises:
        ValueError: `num_tasks` is not a whole number above 0.

    Example:
        >>> equal_shares(4)
        [0.75, 0.6666666666666666, 0.5, 0.0]
    """
    whole = isinstance(num_tasks, numbers.Integral) and not isinstance(num_tasks, bool)
    if not whole or num_tasks < 1:
        raise ValueError(
            f"num_tasks is how many tasks the trunk will hold; got {num_tasks!r}. Write "
            "equal_shares(3) for three."
        )
    return [(num_tasks - t) / (num_tasks - t + 1) for t in range(1, int(num_tasks) + 1)]


def rate_for_share(rate: float, share: float) -> float:
    """The learning rate of gradient descent for a task that trains a part of the weights.

    What a step changes in a network's outputs is the rate times the squared norm of the gradient,
    and of that a part of the weights has about its share. So at the rate of a whole network it
    learns slower, and ends too early; see docs/comparison.md for figures. For Adam and its kind,
    whose steps do not depend on the norm, and for normalisation that is frozen, this was not found
    to hold.

    Args:
        rate: that is right where all weights train.
        share: of all packed weights, those that the task trains: while it is pruned gradually those
            that it will keep; 0 to 1.

    Returns:
        `rate / share`, at most twice the rate: more makes tasks that keep little learn worse.

    Raises:
        ValueError: the share is out of range.

    Example:
        >>> rate_for_share(0.003, 0.75)
        0.004
    """
    return rate / max(check_ratio(share, "share"), LEAST_SHARE)


@dataclasses.dataclass(frozen=True)
class Share:
    """What one task gets; all are fractions of the packed weights.

    Attributes:
        prune_ratio: fraction of its claim that it releases.
        claimed: what it trains, all that is free when it comes.
        owned: what it keeps for good.
        seen: what it answers with, its own and those of earlier tasks.
        free: what is left for later ones.
    """

    prune_ratio: float
    claimed: float
    owned: float
    seen: float
    free: float


def plan(ratios: Sequence[float], free: float = 1.0) -> list[Share]:
    """Divides a trunk among tasks in the order of their ratios.

    Args:
        ratios: the prune_ratio of each task, 0 to 1.
        free: fraction of the packed weights that is free now, `net.capacity().free` for a pack
            with tasks.

    Returns:
        A `Share` per task. In a real pack every layer rounds to whole weights.

    Raises:
        ValueError: a ratio is out of range.

    Example:
        >>> [share.owned for share in plan([0.5, 0.75, 0.0])]
        [0.5, 0.125, 0.375]
    """
    shares = []
    for ratio in ratios:
        ratio = check_ratio(ratio)
        claimed, free = free, free * ratio
        shares.append(Share(ratio, claimed, claimed - free, 1.0 - free, free))
    return shares


def plan_table(shares: Sequence[Share], first: int = 1) -> str:
    """Lays out a plan, a row per task; `first` is the number of its first one."""
    head = ["task", "prune_ratio", "claims", "owns", "sees", "left free"]
    rows = [
        [str(number), f"{share.prune_ratio:.4g}"]
        + [f"{part:.1%}" for part in (share.claimed, share.owned, share.seen, share.free)]
        for number, share in enumerate(shares, start=first)
    ]
    return text_table(head, rows)
