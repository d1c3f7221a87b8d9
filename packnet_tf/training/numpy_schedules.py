"""The schedules of tensorflow-model-optimization in NumPy, for where it cannot be imported.

Their answers are the same, to the bit.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ConstantSparsity:
    """See `schedules.constant_sparsity`."""

    target_sparsity: float
    begin_step: int
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self) -> None:
        _check_sparsity("target_sparsity", self.target_sparsity)
        end = self.begin_step if self.end_step == -1 else self.end_step
        _check_steps(self.begin_step, end, self.frequency)

    def __call__(self, step: int) -> tuple[bool, np.float32]:
        due = _due(step, self.begin_step, self.end_step, self.frequency)
        return due, np.float32(self.target_sparsity)


@dataclasses.dataclass(frozen=True)
class PolynomialDecay:
    """See `schedules.polynomial_decay`."""

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self) -> None:
        _check_sparsity("initial_sparsity", self.initial_sparsity)
        _check_sparsity("final_sparsity", self.final_sparsity)
        _check_steps(self.begin_step, self.end_step, self.frequency)

    def __call__(self, step: int) -> tuple[bool, np.float32]:
        due = _due(step, self.begin_step, self.end_step, self.frequency)
        one, length = np.float32(1), np.float32(self.end_step - self.begin_step)
        with np.errstate(divide="ignore", invalid="ignore"):  # a length of 0
            done = np.clip(np.float32(step - self.begin_step) / length, 0, one)
            # NumPy's power of float32 differs from TensorFlow's in the last bit.
            left = np.float32(np.float64(one - done) ** self.power)
        change = np.float32(self.initial_sparsity - self.final_sparsity)
        return due, change * left + np.float32(self.final_sparsity)


def _due(step: int, begin_step: int, end_step: int, frequency: int) -> bool:
    """Returns whether to prune at a step; an `end_step` of -1 means no end."""
    within = begin_step <= step and (end_step < 0 or step <= end_step)
    return within and (step - begin_step) % frequency == 0


def _check_sparsity(name: str, sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"{name} is a fraction of the claim, at least 0 and less than 1; got {sparsity!r}. "
            f"Write {name}=0.75 for three quarters."
        )


def _check_steps(begin_step: int, end_step: int, frequency: int) -> None:
    if not 0 <= begin_step <= end_step or frequency < 1:
        raise ValueError(
            f"A schedule prunes every `frequency` steps from begin_step to end_step; got every "
            f"{frequency} steps from {begin_step} to {end_step}. Write, for instance, "
            "begin_step=0, end_step=1000, frequency=100."
        )
