"""Optimizers, learning rates and pruning schedules for the settings of a task."""

import math
from collections.abc import Callable
from typing import Any

import keras

import packnet_tf
from packnet_tf.apps.packs.plan import Learning
from packnet_tf.planning import rate_for_share
from packnet_tf.training.schedules import Schedule

BESIDE_BASE = 2.0  # few weights that start from 0 tolerate this: see docs/measured/settings.md
# An overlay is chosen after a fifth of the epochs. By optimizer, the factors on the learning rate:
# in training all weights, and in retraining the chosen ones; see docs/measured/overlays.md.
OVERLAY_TRAINING = 0.2
OVERLAY_FACTORS = {"sgd": (1.0, 2.0), "adam": (1 / 6, 1.0), "adamw": (1 / 6, 1.0)}
GRADUAL = (0.125, 0.75)  # start and end of gradual pruning, as shares of the training


def optimizer(name: str, accumulation: int = 1) -> Callable[[float], keras.optimizers.Optimizer]:
    """Returns a function from a learning rate to an optimizer.

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
    """Returns the rate of an epoch, decayed from `rate` to a tenth of it along half a cosine."""
    share = epoch / max(1, epochs - 1)
    return rate * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def step(epoch: int, every: int, rate: float) -> float:
    """Returns the rate of an epoch, divided by ten after every `every` epochs."""
    return rate * 0.1 ** (epoch // every)


def decayed(
    rate: float, epochs: int, decay: str = "cosine", every: int = 10
) -> Callable[[int], float]:
    """Returns a function from the epoch of a phase to its learning rate.

    Args:
        rate: rate of the first epoch.
        epochs: number of epochs of the phase.
        decay: "cosine", "step" or "none".
        every: for "step", see `step`.
    """
    return {
        "cosine": lambda epoch: cosine(epoch, epochs, rate),
        "step": lambda epoch: step(epoch, every, rate),
        "none": lambda epoch: rate,
    }[decay]


def of_phases(
    settings: Learning, decay: str = "cosine", every: int = 10
) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """Returns the learning rates of a task's training and of its retraining, see `decayed`.

    Args:
        settings: the settings of the task.
        decay, every: see `decayed`.
    """
    after = settings.epochs - settings.prune_epoch
    return (
        decayed(settings.learning_rate, settings.prune_epoch, decay, every),
        decayed(settings.rate_after, after, decay, every),
    )


def of_overlay(settings: Learning, decay: str = "cosine", every: int = 10) -> dict[str, Any]:
    """Returns the epochs and learning rates of a task with an overlay, as fields of its `Task`.

    Args:
        settings: the settings of the command.
        decay, every: see `decayed`.
    """
    before = min(max(1, round(OVERLAY_TRAINING * settings.epochs)), settings.epochs - 1)
    after = settings.epochs - before
    given = settings.retrain_learning_rate
    rate = settings.learning_rate if given is None else given
    return {
        "epochs": before,
        "retrain_epochs": after,
        "learning_rate": decayed(settings.learning_rate, before, decay, every),
        "retrain_learning_rate": decayed(rate, after, decay, every),
    }


def factors(
    net: packnet_tf.PackNet,
    optimizer: str,
    way: float | packnet_tf.Auto,
    gradual: bool,
    claim_ratio: float = 1.0,
    scale_rate: bool = True,
    owns: bool = True,
) -> tuple[float, float]:
    """Returns the factors on the rates of a pack's next task, in training and in retraining.

    For SGD see `packnet_tf.planning.rate_for_share`. For Adam beside a base both are `BESIDE_BASE`.
    In other cases both are 1. Those of a task with an overlay are `OVERLAY_FACTORS`.

    Args:
        net: the pack.
        optimizer: as for `optimizer`.
        way: the ratio of its claim that the task will release; `Auto`, whose ratio is not known
            yet, counts as 0.
        gradual: whether it is pruned during the training.
        claim_ratio: fraction of the free weights that it claims.
        scale_rate: False makes both 1, of tasks that own weights.
        owns: whether it owns weights; False: it has an overlay.
    """
    if not owns:
        return OVERLAY_FACTORS[optimizer]
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
    """Returns the `prune` argument of `PackTrainer` for a task.

    Args:
        way: the ratio of the claim to release in the end, or `Auto`, which is returned as it is.
        epochs: epochs of the training, before the retraining.
        steps: steps per epoch.
        gradual: whether to prune in 20 steps, from an eighth of the training to three quarters of
            it, and not once before the retraining. docs/measured/settings.md has the gain.
    """
    begin, end = (int(epochs * steps * share) for share in GRADUAL)
    if isinstance(way, packnet_tf.Auto) or not gradual or way == 0 or begin == end:
        return way
    return packnet_tf.polynomial_decay(0.0, way, begin, end, frequency=max(1, (end - begin) // 20))
