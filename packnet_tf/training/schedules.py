"""Gradual pruning by schedules, functions `step -> (should_prune, sparsity)`."""

import functools
import os
from collections.abc import Callable, Iterable
from types import ModuleType

from packnet_tf.backend.text import quoted
from packnet_tf.packing.pruning import check_ratio
from packnet_tf.training import numpy_schedules

Schedule = Callable[[int], tuple[bool, float]]
EARLY = 10_000
LAST_STEP = 2**31 - 1  # the largest int32, TensorFlow's dtype for steps


def polynomial_decay(
    initial_sparsity: float,
    final_sparsity: float,
    begin_step: int,
    end_step: int,
    power: float = 3,
    frequency: int = 100,
) -> Schedule:
    """Creates a schedule whose sparsity rises fast at first and more slowly later.

    It is `PolynomialDecay` of tensorflow-model-optimization, or the same in NumPy where that cannot
    be imported.

    Args:
        initial_sparsity: fraction of the initial claim that is released at `begin_step`, 0 to 1.
        final_sparsity: the same from `end_step` on.
        begin_step: training step of the first prune.
        end_step: training step of the last one.
        power: exponent of the polynomial, 3 in the source.
        frequency: number of steps between prunes.

    Returns:
        A function `step -> (should_prune, sparsity)`.

    Example:
        >>> schedule = packnet_tf.polynomial_decay(0.0, 0.75, begin_step=0, end_step=1000)
        >>> packnet_tf.PackNetCallback(schedule=schedule)

    Source: Zhu & Gupta, To prune, or not to prune, 2017, arXiv 1710.01878, section 3.
    """
    return _schedules().PolynomialDecay(
        initial_sparsity, final_sparsity, begin_step, end_step, power, frequency
    )


def constant_sparsity(
    target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100
) -> Schedule:
    """Creates a schedule with one sparsity from `begin_step` on.

    It is `ConstantSparsity` of tensorflow-model-optimization, or the same in NumPy where that
    cannot be imported.

    Args:
        target_sparsity: fraction of the initial claim to release, 0 to 1.
        begin_step: training step of the first prune.
        end_step: training step of the last one; -1 means no end.
        frequency: number of steps between prunes.

    Returns:
        A function `step -> (should_prune, sparsity)`.

    Example:
        >>> schedule = packnet_tf.constant_sparsity(0.5, begin_step=100)
    """
    return _schedules().ConstantSparsity(target_sparsity, begin_step, end_step, frequency)


@functools.cache
def _schedules() -> ModuleType:
    """Returns the module with `PolynomialDecay` and `ConstantSparsity`."""
    try:
        return _tfmot_schedules()
    except Exception:  # an old library with a new TensorFlow raises anything
        return numpy_schedules


def _tfmot_schedules() -> ModuleType:
    """Imports tensorflow-model-optimization's schedules and keeps `tf.keras` at Keras 3."""
    import tensorflow as tf

    flag = "TF_USE_LEGACY_KERAS"  # the import sets this variable and then uses tf.keras
    before = os.environ.get(flag)
    _ = tf.keras.__version__  # fixes the version for the rest of the process
    try:
        from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule
    finally:
        if before is None:
            os.environ.pop(flag, None)
        else:
            os.environ[flag] = before
    return pruning_schedule


def ask(schedule: Schedule, step: int) -> tuple[bool, float]:
    """Calls a schedule and checks its result.

    Args:
        schedule: any function `step -> (should_prune, sparsity)`.
        step: the training step.

    Returns:
        A bool and a float from 0 to 1.

    Raises:
        ValueError: the schedule does not return such a pair.
    """
    answer = schedule(step)
    try:
        should_prune, sparsity = answer
        should_prune = bool(should_prune)
        # float32 0.7 is 0.69999999 as a float; its shortest decimal is the intended value.
        sparsity = float(str(getattr(sparsity, "numpy", lambda: sparsity)()))
        return should_prune, check_ratio(sparsity, "sparsity")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A schedule returns a pair (should_prune, sparsity) for a step, sparsity from 0 to "
            f"1; for step {step} this one returned {answer!r}. Write, for instance, "
            "lambda step: (step % 100 == 0, min(0.75, step / 1000))."
        ) from error


def final_sparsity(schedule: Schedule) -> float:
    """Returns the sparsity at which a schedule ends.

    That is what it returns for the largest step; or, if it returns `(False, 0)` wherever no prune
    is due, the highest sparsity of the prunes that are due in its first `EARLY` steps.

    Raises:
        ValueError: the schedule fails for the largest step, or returns no such pair.

    Example:
        >>> final_sparsity(lambda step: (step % 10 == 0, min(0.5, step / 50)))
        0.5
        >>> final_sparsity(lambda step: (True, step / 50) if step in (10, 20) else (False, 0.0))
        0.4
    """
    try:
        schedule(LAST_STEP)
    except Exception as error:
        raise ValueError(
            f"A schedule is asked for step {LAST_STEP} too, for the sparsity at which it ends, and "
            f"this one raised {type(error).__name__}: {quoted(error)}. Return (False, its last "
            "sparsity) for all steps after its end."
        ) from error
    should_prune, sparsity = ask(schedule, LAST_STEP)
    if should_prune or sparsity > 0:
        return sparsity
    answers = (ask(schedule, step) for step in range(EARLY))
    return max((sparsity for should_prune, sparsity in answers if should_prune), default=0.0)


def due(schedule: Schedule, steps: Iterable[int], begun: bool, final: float) -> float | None:
    """Returns the sparsity to prune to after some steps; None if no prune is due.

    A schedule that prunes at a fixed frequency may skip the step at which it ends. Therefore, once
    pruning has begun, the final sparsity is due at the first step for which it is returned.

    Args:
        schedule: any function `step -> (should_prune, sparsity)`.
        steps: the steps to check, ascending.
        begun: whether an earlier prune was due.
        final: the schedule's final sparsity, 0 to 1.

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
