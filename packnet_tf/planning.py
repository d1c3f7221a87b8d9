"""How the capacity of a trunk divides among tasks."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING

from packnet_tf.packing.pruning import check_ratio
from packnet_tf.reporting.tables import text_table

if TYPE_CHECKING:
    from packnet_tf.net import PackNet

LEAST_SHARE = 0.5  # below it the learning rate rises no further
# What a task needs, as shares of the packed weights; see docs/comparison.md.
LEAST_SEEN, LEAST_OWNED = 1 / 3, 0.005


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


def erk_ratios(net: "PackNet", ratio: float, power: float = 0.5) -> dict[str, float]:
    """Ratios that release the same share of the whole trunk, but less of its small layers.

    A uniform ratio takes as much of a depthwise kernel, of a first layer and of others with few
    weights a channel as of the large ones, and they bear it worst: releasing a fifth of
    MobileNetV2 uniformly changes its features four times as much. See docs/adoption.md.

    Args:
        net: the pack; its packed weights and their shapes count, not who owns them.
        ratio: fraction of all packed weights to release, 0 to 1.
        power: how far to go: 0 is uniform, 1 is Erdős-Rényi-kernel, whose densities are
            proportional to the sum of a kernel's sides over their product.

    Returns:
        By the path of every packed weight its ratio, as `net.prune` and `net.adopt` take it.

    Raises:
        ValueError: the ratio is out of range.

    Example:
        >>> net.adopt("base", packnet_tf.erk_ratios(net, 0.2), images=images)

    Source: Evci et al., Rigging the Lottery, ICML 2020, section 3.
    """
    shapes = {path: owner.shape for path, owner in net.owners().items()}
    return dict(zip(shapes, ratios_for_shapes(list(shapes.values()), ratio, power), strict=True))


def ratios_for_shapes(
    shapes: Sequence[Sequence[int]], ratio: float, power: float = 0.5
) -> list[float]:
    """The same for shapes of weights, in their order.

    Example:
        >>> [round(r, 3) for r in ratios_for_shapes([(3, 3, 8, 1), (1, 1, 64, 64)], 0.5)]
        [0.0, 0.509]
    """
    ratio = check_ratio(ratio)
    sizes = [math.prod(shape) for shape in shapes]
    raw = [(sum(shape) / size) ** power for shape, size in zip(shapes, sizes, strict=True)]
    keep: float = (1.0 - ratio) * sum(sizes)
    dense: set[int] = set()
    while True:  # a layer cannot be denser than dense: what it does not take goes to the others
        open_ = [i for i in range(len(sizes)) if i not in dense]
        left = keep - sum(sizes[i] for i in dense)
        factor = left / sum(raw[i] * sizes[i] for i in open_) if open_ and left > 0 else 0.0
        full = {i for i in open_ if factor * raw[i] > 1.0}
        if not full:
            return [0.0 if i in dense else 1.0 - factor * raw[i] for i in range(len(sizes))]
        dense |= full


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


def too_little(shares: Sequence[Share], first: int = 1) -> list[str]:
    """A sentence for every task of a plan that gets less than it can live with.

    Args:
        shares: the plan.
        first: number of its first task.

    Example:
        >>> too_little(plan([0.9, 0.0]))[0].partition(":")[0]
        'Task 1 will see 10.0% of the packed weights'
    """
    found = []
    for number, share in enumerate(shares, start=first):
        if share.seen < LEAST_SEEN:
            found.append(
                f"Task {number} will see {share.seen:.1%} of the packed weights: small trunks "
                "lose much of what they know below a third. Keep a pretrained trunk as the base "
                "(--adopt, net.adopt), plan fewer tasks, or take a lower ratio for this one."
            )
        elif share.owned < LEAST_OWNED:
            found.append(
                f"Task {number} will own {share.owned:.2%} of the packed weights, and learns "
                "little beyond its head and normalisation. Plan fewer tasks, or higher ratios for "
                "those before it."
            )
    return found


def plan_table(shares: Sequence[Share], first: int = 1) -> str:
    """Lays out a plan, a row per task; `first` is the number of its first one."""
    head = ["task", "prune_ratio", "claims", "owns", "sees", "left free"]
    rows = [
        [str(number), f"{share.prune_ratio:.4g}"]
        + [f"{part:.1%}" for part in (share.claimed, share.owned, share.seen, share.free)]
        for number, share in enumerate(shares, start=first)
    ]
    return text_table(head, rows)
