"""Plans how tasks divide the capacity of a trunk."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING

from packnet_tf.packing.pruning import check_ratio
from packnet_tf.reporting.tables import text_table

if TYPE_CHECKING:
    from packnet_tf.net import PackNet

LEAST_SHARE = 0.5  # below this share the learning rate does not rise further
# The least that a task needs, as fractions of the packed weights; see docs/measured/settings.md.
LEAST_SEEN, LEAST_OWNED = 1 / 3, 0.005
ROUNDING = 1e-9  # of sums of shares


def equal_shares(num_tasks: int) -> list[float]:
    """Computes prune ratios that give every task the same share of the trunk.

    Task t of T claims the T - t + 1 shares that earlier tasks left, and releases all but one.

    Args:
        num_tasks: number of tasks, T.

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


def usual_prune_epoch(epochs: int) -> int:
    """Returns the epoch that prunes where none is given: two thirds of all, and never the end.

    Args:
        epochs: number of all epochs of a task, those after the prune included.

    Example:
        >>> usual_prune_epoch(30)
        20
    """
    return max(0, min(round(epochs * 2 / 3), epochs - 1))


def erk_ratios(net: "PackNet", ratio: float, power: float = 0.5) -> dict[str, float]:
    """Computes ratios that release a fraction of the whole trunk, but less of its small layers.

    A uniform ratio releases the same fraction of all layers. Small kernels (depthwise ones, those
    of the first layer) suffer most from it: releasing a fifth of MobileNetV2 uniformly changes its
    features four times as much. See docs/measured/base.md.

    Args:
        net: the pack; only the shapes of its packed weights count, not their owners.
        ratio: fraction of all packed weights to release, 0 to 1.
        power: 0 is uniform; 1 is Erdős-Rényi-kernel, whose densities are proportional to the sum
            of a kernel's sides over their product; values in between mix the two.

    Returns:
        Dict from the path of every packed weight to its ratio, for `net.prune` and `net.adopt`.

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
    """Computes the ratios of `erk_ratios` for a list of shapes.

    Args:
        shapes: shapes of the packed weights.
        ratio: as for `erk_ratios`.
        power: as for `erk_ratios`.

    Returns:
        One ratio per shape, 0 to 1.

    Example:
        >>> [round(r, 3) for r in ratios_for_shapes([(3, 3, 8, 1), (1, 1, 64, 64)], 0.5)]
        [0.0, 0.509]
    """
    ratio = check_ratio(ratio)
    sizes = [math.prod(shape) for shape in shapes]
    raw = [(sum(shape) / size) ** power for shape, size in zip(shapes, sizes, strict=True)]
    keep: float = (1.0 - ratio) * sum(sizes)
    dense: set[int] = set()
    while True:  # no layer keeps more than all its weights; the others keep the rest
        open_ = [i for i in range(len(sizes)) if i not in dense]
        left = keep - sum(sizes[i] for i in dense)
        factor = left / sum(raw[i] * sizes[i] for i in open_) if open_ and left > 0 else 0.0
        full = {i for i in open_ if factor * raw[i] > 1.0}
        if not full:
            return [0.0 if i in dense else 1.0 - factor * raw[i] for i in range(len(sizes))]
        dense |= full


def rate_for_share(rate: float, share: float) -> float:
    """Computes the learning rate of gradient descent for a task that trains a part of the weights.

    A gradient step changes a network's outputs by the learning rate times the gradient's squared
    norm. A part of the weights has about its share of that, so at the learning rate of a whole
    network it learns more slowly and ends too early; docs/measured/settings.md has figures.
    Measurements did not show this for Adam and similar optimizers, whose steps do not depend on the
    norm, nor with frozen normalisation.

    Args:
        rate: the learning rate that suits a network in which all weights train.
        share: fraction of all packed weights that the task trains, 0 to 1; with gradual pruning,
            the fraction that it will keep.

    Returns:
        `rate / share`, at most twice the rate: more harms tasks that keep little.

    Raises:
        ValueError: the share is out of range.

    Example:
        >>> rate_for_share(0.003, 0.75)
        0.004
    """
    return rate / max(check_ratio(share, "share"), LEAST_SHARE)


@dataclasses.dataclass(frozen=True)
class Share:
    """The share of one task; all fields except `prune_ratio` are fractions of the packed weights.

    Attributes:
        prune_ratio: fraction of its claim that the task releases, 0 to 1.
        claimed: weights that the task trains: all that are free when it is added.
        owned: weights that the task keeps.
        seen: weights that the task uses, its own and those of the earlier tasks that it sees.
        free: weights left for later tasks.

    Example:
        >>> plan([0.75])[0]
        Share(prune_ratio=0.75, claimed=1.0, owned=0.25, seen=0.25, free=0.75)
    """

    prune_ratio: float
    claimed: float
    owned: float
    seen: float
    free: float


def plan(
    ratios: Sequence[float], free: float = 1.0, seen_before: float | None = None
) -> list[Share]:
    """Plans the shares of tasks from their prune ratios, in order.

    Args:
        ratios: the prune_ratio of each task, 0 to 1.
        free: fraction of the packed weights that is free now, 0 to 1; for a pack with tasks,
            `net.capacity().free`.
        seen_before: fraction of the packed weights that each task sees besides its own: with
            `reuse="none"` 0, with `reuse=["base"]` what the base owns. None: those of all earlier
            tasks, `reuse="all"`.

    Returns:
        A `Share` per task. In a real pack every layer rounds to whole weights.

    Raises:
        ValueError: a ratio is out of range.

    Example:
        >>> [share.owned for share in plan([0.5, 0.75, 0.0])]
        [0.5, 0.125, 0.375]
        >>> [share.seen for share in plan([0.5, 0.0], free=0.25, seen_before=0.75)]
        [0.875, 0.875]
    """
    shares = []
    for ratio in ratios:
        ratio = check_ratio(ratio)
        claimed, free = free, free * ratio
        owned = claimed - free
        seen = 1.0 - free if seen_before is None else seen_before + owned
        shares.append(Share(ratio, claimed, owned, seen, free))
    return shares


def too_little(shares: Sequence[Share], first: int = 1) -> list[str]:
    """Describes the tasks of a plan that get too few weights.

    Args:
        shares: the plan.
        first: number of the plan's first task.

    Returns:
        A sentence for each such task.

    Example:
        >>> too_little(plan([0.9, 0.0]))[0].partition(":")[0]
        'Task 1 will see 10.0% of the packed weights'
    """
    found = []
    for number, share in enumerate(shares, start=first):
        if share.seen < LEAST_SEEN:
            hides = share.seen < 1.0 - share.free - ROUNDING
            more = "let it see more earlier tasks (--reuse, add_task(reuse=...)), " if hides else ""
            found.append(
                f"Task {number} will see {share.seen:.1%} of the packed weights: small trunks "
                "lose much of what they know below a third. Keep a pretrained trunk as the base "
                f"(--adopt, net.adopt), {more}plan fewer tasks, or take a lower ratio for this "
                "one."
            )
        elif share.owned < LEAST_OWNED:
            found.append(
                f"Task {number} will own {share.owned:.2%} of the packed weights, and learns "
                "little beyond its head and normalisation. Plan fewer tasks, or higher ratios for "
                "those before it, or let it override weights: add_task(..., overlay=0.05), which "
                "packnet train does by itself."
            )
    return found


def plan_table(shares: Sequence[Share], first: int = 1) -> str:
    """Lays out a plan as a table.

    Args:
        shares: the plan.
        first: number of the plan's first task.

    Example:
        >>> print(plan_table(plan([0.75, 0.0])))
    """
    head = ["task", "prune_ratio", "claims", "owns", "sees", "left free"]
    rows = [
        [str(number), f"{share.prune_ratio:.4g}"]
        + [f"{part:.1%}" for part in (share.claimed, share.owned, share.seen, share.free)]
        for number, share in enumerate(shares, start=first)
    ]
    return text_table(head, rows)
