"""Gradual pruning: schedules `step -> (should_prune, sparsity)`, and what they ask for when."""

import functools
import os
from collections.abc import Callable, Iterable
from types import ModuleType

from packnet_tf.packing.pruning import check_ratio

Schedule = Callable[[int], tuple[bool, float]]
LAST_STEP = 2**31 - 1  # the largest that TensorFlow's int32 holds


def polynomial_decay(
    initial_sparsity: float,
    final_sparsity: float,
    begin_step: int,
    end_step: int,
    power: float = 3,
    frequency: int = 100,
) -> Schedule:
    """A sparsity that rises fast at first and slower later, `PolynomialDecay` of
    tensorflow-model-optimization.

    Args:
        initial_sparsity: sparsity at `begin_step`, of what the task began with, 0 to 1.
        final_sparsity: sparsity from `end_step` on.
        begin_step, end_step: training steps.
        power: of the polynomial, 3 in the source.
        frequency: steps from one prune to the next.

    Example:
        >>> schedule = packnet_tf.polynomial_decay(0.0, 0.75, begin_step=0, end_step=1000)
        >>> packnet_tf.PackNetCallback(schedule=schedule)

    Source: Zhu & Gupta, To prune, or not to prune, 2017, arXiv 1710.01878, section 3.
    """
    return _tfmot_schedules().PolynomialDecay(
        initial_sparsity, final_sparsity, begin_step, end_step, power, frequency
    )


def constant_sparsity(
    target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100
) -> Schedule:
    """One sparsity from `begin_step` on, `ConstantSparsity` of tensorflow-model-optimization.

    Args:
        target_sparsity: of what the task began with, 0 to 1.
        begin_step, end_step: training steps; -1: no end.
        frequency: steps from one prune to the next.
    """
    return _tfmot_schedules().ConstantSparsity(target_sparsity, begin_step, end_step, frequency)


@functools.cache
def _tfmot_schedules() -> ModuleType:
    """tensorflow-model-optimization's schedules, imported without turning `tf.keras` to Keras 2."""
    import tensorflow as tf

    flag = "TF_USE_LEGACY_KERAS"  # the import sets it, and asks for tf.keras under it
    before = os.environ.get(flag)
    _ = tf.keras.__version__  # decided here, for the rest of the process
    try:
        from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule
    finally:
        if before is None:
            os.environ.pop(flag, None)
        else:
            os.environ[flag] = before
    return pruning_schedule


def ask(schedule: Schedule, step: int) -> tuple[bool, float]:
    """What a schedule says of a step, as a bool and a float.

    Raises:
        ValueError: it does not return such a pair.
    """
    answer = schedule(step)
    try:
        should_prune, sparsity = answer
        should_prune = bool(should_prune)
        # A float32 tensor of 0.7 is 0.69999999; its shortest decimal is what was meant.
        sparsity = float(str(getattr(sparsity, "numpy", lambda: sparsity)()))
        return should_prune, check_ratio(sparsity, "sparsity")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A schedule answers a step with a pair (should_prune, sparsity), sparsity from 0 to "
            f"1; for step {step} this one returned {answer!r}. Write, for instance, "
            "lambda step: (step % 100 == 0, min(0.75, step / 1000))."
        ) from error


def final_sparsity(schedule: Schedule) -> float:
    """Where a schedule ends."""
    return ask(schedule, LAST_STEP)[1]


def due(schedule: Schedule, steps: Iterable[int], begun: bool, final: float) -> float | None:
    """The sparsity that is due after some steps, None if none is.

    A schedule that prunes every so many steps may miss the step at which it ends. So once it has
    begun, its final sparsity is due as soon as it is there.

    Args:
        schedule: any `step -> (should_prune, sparsity)`.
        steps: the steps to ask for, ascending.
        begun: whether it has asked for a prune before.
        final: its final sparsity.

    Example:
        >>> due(lambda step: (step % 10 == 0, min(0.5, step / 50)), range(1, 25), False, 0.5)
        0.4
    """
    wanted = None
    for step in steps:
        should_prune, sparsity = ask(schedule, step)
        if should_prune or (begun and sparsity == final):
            begun, wanted = True, sparsity
    return wanted
