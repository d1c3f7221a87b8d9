"""Optimizers, learning rates and pruning schedules, from what a command line or a file says."""

import math
from collections.abc import Callable

import keras

import packnet_tf
from packnet_tf.apps.packs.plan import Learning
from packnet_tf.planning import rate_for_share
from packnet_tf.training.schedules import Schedule

BESIDE_BASE = 2.0  # what few weights that start from 0 bear, on both trunks of docs/comparison.md
GRADUAL = (0.125, 0.75)  # shares of the training between which gradual pruning goes on


def optimizer(name: str, accumulation: int = 1) -> Callable[[float], keras.optimizers.Optimizer]:
    """What makes an optimizer from a learning rate.

    Args:
        name: "sgd" (with momentum 0.9), "adam" or "adamw".
        accumulation: batches whose gradients make one update.
    """
    options = {"gradient_accumulation_steps": accumulation} if accumulation > 1 else {}
    return {
        "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, **options),
        "adam": lambda rate: keras.optimizers.Adam(rate, **options),
        "adamw": lambda rate: keras.optimizers.AdamW(rate, **options),
    }[name]


def cosine(epoch: int, epochs: int, rate: float) -> float:
    """The rate of an epoch: from `rate` down to a tenth of it, along half a cosine."""
    share = epoch / max(1, epochs - 1)
    return rate * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def step(epoch: int, every: int, rate: float) -> float:
    """The rate of an epoch: a tenth of what it was after every so many epochs."""
    return rate * 0.1 ** (epoch // every)


def decayed(
    rate: float, epochs: int, decay: str = "cosine", every: int = 10
) -> Callable[[int], float]:
    """The rate of every epoch of a phase, as a function.

    Args:
        rate: of the first epoch.
        epochs: how many the phase has.
        decay: "cosine", "step" or "none".
        every: for "step", see `step`.
    """
    return {
        "cosine": lambda epoch: cosine(epoch, epochs, rate),
        "step": lambda epoch: step(epoch, every, rate),
        "none": lambda epoch: rate,
    }[decay]


def of_phases(
    settings: Learning,
    factors: tuple[float, float] = (1.0, 1.0),
    decay: str = "cosine",
    every: int = 10,
) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """The rates of every epoch of a task's training and of its retraining, see `decayed`.

    Args:
        settings: of the task.
        factors: what to multiply the two by.
        decay, every: see `decayed`.
    """
    first, then = settings.learning_rate * factors[0], settings.rate_after * factors[1]
    after = settings.epochs - settings.prune_epoch
    return decayed(first, settings.prune_epoch, decay, every), decayed(then, after, decay, every)


def factors(
    net: packnet_tf.PackNet,
    optimizer: str,
    way: float | packnet_tf.Auto,
    gradual: bool,
    claim_ratio: float = 1.0,
    scale_rate: bool = True,
) -> tuple[float, float]:
    """What to multiply the rates of the next task of a pack by, in training and in retraining.

    Of SGD see `packnet_tf.planning.rate_for_share`; of Adam beside a base they are `BESIDE_BASE`.
    Where neither holds, they are 1.

    Args:
        net: the pack.
        optimizer: as for `optimizer`.
        way: the ratio of its claim that the task will release; of `Auto`, which has yet to find its
            own, nothing is counted on.
        gradual: whether it does so during the training.
        claim_ratio: of the free weights that it claims.
        scale_rate: False: they are 1 in any case.
    """
    if not scale_rate or net.policy.norms == "shared":
        return 1.0, 1.0
    if optimizer != "sgd":
        return (BESIDE_BASE, BESIDE_BASE) if net.base else (1.0, 1.0)
    claimed = net.capacity().free * claim_ratio
    kept = claimed if isinstance(way, packnet_tf.Auto) else claimed * (1.0 - way)
    return rate_for_share(1.0, kept if gradual else claimed), rate_for_share(1.0, kept)


def pruning(
    way: float | packnet_tf.Auto, epochs: int, steps: int, gradual: bool
) -> float | packnet_tf.Auto | Schedule:
    """How a task comes to its ratio, as `PackTrainer` takes it.

    Args:
        way: the ratio of the claim that is released in the end; `Auto` stays as it is.
        epochs: of the training, before the retraining.
        steps: of one epoch.
        gradual: at once where the retraining begins, or in 20 prunes from an eighth of the training
            to three quarters of it; see docs/comparison.md for what that gains.
    """
    begin, end = (int(epochs * steps * share) for share in GRADUAL)
    if isinstance(way, packnet_tf.Auto) or not gradual or way == 0 or begin == end:
        return way
    return packnet_tf.polynomial_decay(0.0, way, begin, end, frequency=max(1, (end - begin) // 20))
