"""One packed weight: the four variables that several tasks share."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.types import Tensor
from packnet_tf.packing.pruning import check_released, claimable, count_by_owner, magnitude

# `ops.where` below gets the `value` of variables: on JAX it does not take variables.
MAX_TASKS = 255  # owners and claims are uint8
Criterion = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclasses.dataclass(eq=False)
class PackedWeight:
    """The variables behind one kernel, all of the kernel's shape.

    Committed values are in `packed`, which no optimizer is ever given: whatever weight decay,
    constraints or moving averages do to `trainable`, they cannot reach them.

    Attributes:
        trainable: float variable the optimizer trains; None in a view that cannot be trained.
        packed: float variable; an owned weight's final value, a free weight's restart value.
        owner: uint8 variable (see `owner_dtype`); 1-based number of the task that owns the
            weight, 0 = free.
        claim: the same; number of the task that is training the weight, 0 = none; None where
            `trainable` is None.
    """

    trainable: keras.Variable | None
    packed: keras.Variable
    owner: keras.Variable
    claim: keras.Variable | None

    @property
    def variables(self) -> list[keras.Variable]:
        every = (self.trainable, self.packed, self.owner, self.claim)
        return [variable for variable in every if variable is not None]

    @property
    def values(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The values of the four, as `select` takes them; None where there is no variable."""
        trainable = None if self.trainable is None else self.trainable.value
        claim = None if self.claim is None else self.claim.value
        return trainable, self.packed.value, self.owner.value, claim

    @property
    def trained(self) -> tuple[keras.Variable, keras.Variable]:
        """`trainable` and `claim`.

        Raises:
            RuntimeError: the view cannot be trained, and has neither.
        """
        if self.trainable is None or self.claim is None:
            raise RuntimeError(
                "This view of the weight cannot be trained: take the model of the open task, "
                "net.open_model."
            )
        return self.trainable, self.claim

    def view(self, sees: Sequence[int]) -> Tensor:
        """The kernel as a task sees it.

        Args:
            sees: numbers of the tasks whose weights it sees, ascending; the last is its own, which
                is also the claim that it sees. Empty: no weight at all.
        """
        return select(*self.values, own_number(sees), ranges(sees))

    def restart(self, values: np.ndarray | Tensor) -> None:
        """Gives free weights other values to start the next task from."""
        free = ops.equal(self.owner, 0)
        self.packed.assign(ops.where(free, values, self.packed.value))

    def open(self, task: int, ratio: float = 1.0) -> None:
        """Lets task number `task` claim that ratio of the free weights."""
        trainable, claim = self.trained
        chosen = ops.equal(self.owner, 0)
        if ratio < 1.0:
            start, free = ops.convert_to_numpy(self.packed), ops.convert_to_numpy(chosen)
            chosen = ops.convert_to_tensor(claimable(start, free, ratio))
        # Nothing but the claim is ever non-zero here, so decay and regularizers act on it alone.
        trainable.assign(ops.where(chosen, self.packed.value, 0.0))
        claim.assign(ops.cast(chosen, claim.dtype) * task)

    def choose(self, ratio: float, criterion: Criterion = magnitude) -> np.ndarray:
        """Which weights pruning by `ratio` would release, a bool array."""
        claim = ops.convert_to_numpy(self.claim) > 0
        values = ops.convert_to_numpy(self.trainable)
        return check_released(criterion(values, claim, ratio), claim, ratio, criterion)

    def release(self, chosen: np.ndarray) -> None:
        """Takes the chosen weights out of the claim; they count as 0 from now on."""
        trainable, claim = self.trained
        claim.assign(ops.where(chosen, ops.cast(0, claim.dtype), claim.value))
        trainable.assign(ops.where(chosen, 0.0, trainable.value))

    def commit(self, task: int, keep_restart_values: bool) -> None:
        """Gives the claim to task number `task` for good."""
        trainable, claim = self.trained
        claimed = ops.equal(claim, task)
        self.packed.assign(ops.where(claimed, trainable.value, self.packed.value))
        self.owner.assign(ops.where(claimed, ops.cast(task, self.owner.dtype), self.owner.value))
        clear(claim)
        if not keep_restart_values:
            free = ops.equal(self.owner, 0)
            self.packed.assign(ops.where(free, 0.0, self.packed.value))

    def give_back(self, task: int, keep_values: bool) -> None:
        """Makes the weights of task number `task` free again."""
        its = ops.equal(self.owner, task)
        if not keep_values:
            self.packed.assign(ops.where(its, 0.0, self.packed.value))
        self.owner.assign(ops.where(its, ops.cast(0, self.owner.dtype), self.owner.value))

    def owner_counts(self, tasks: int) -> list[int]:
        """How many weights are free, of task 1, of task 2, ... (`tasks + 1` counts)."""
        return count_by_owner(ops.convert_to_numpy(self.owner), tasks)

    def claimed(self) -> int:
        """How many weights the open task is training."""
        return int(np.count_nonzero(ops.convert_to_numpy(self.claim)))

    def began(self, claim_ratio: float) -> int:
        """How many weights the open task claimed when it was added."""
        return round(claim_ratio * int(np.count_nonzero(ops.convert_to_numpy(self.owner) == 0)))

    def missing_to(self, sparsity: float, claim_ratio: float) -> int:
        """How many weights are to go until that share of what the task began with is released."""
        began = self.began(claim_ratio)
        return max(0, self.claimed() - (began - round(sparsity * began)))

    def share_to(self, sparsity: float, claim_ratio: float) -> float:
        """The same as a ratio of the claim."""
        return self.missing_to(sparsity, claim_ratio) / max(1, self.claimed())

    def owns_the_same(self, other: "PackedWeight", tasks: int) -> bool:
        """Whether what the first `tasks` tasks own here is what they own there, values included.

        Args:
            other: of the same shape, and of no later task.
            tasks: how many.
        """
        packed, owner, their_packed, their_owner = values_of(
            [self.packed, self.owner, other.packed, other.owner]
        )
        owned = their_owner > 0
        return np.array_equal(their_owner, np.where(owner <= tasks, owner, 0)) and np.array_equal(
            packed[owned], their_packed[owned]
        )

    def claim_is_finite(self) -> bool:
        """Whether no weight that the open task trains is NaN or infinite."""
        trainable, claim = self.trained
        return is_finite(ops.where(ops.greater(claim, 0), trainable.value, 0.0))


def choose_all(
    weights: Mapping[str, PackedWeight],
    ratios: Mapping[str, float],
    criterion: Criterion,
) -> dict[str, np.ndarray]:
    """Which weights pruning every claim by its ratio would release, bool arrays by path.

    Raises:
        ValueError: the choice cannot be made; the message names the layer.
    """
    chosen = {}
    for path, weight in weights.items():
        try:
            chosen[path] = weight.choose(ratios[path], criterion)
        except ValueError as error:
            raise ValueError(f"layer '{path}': {error}") from error
    return chosen


def own_number(sees: Sequence[int]) -> int:
    """Number of the task that sees the weights of these; 0 where it sees none."""
    return sees[-1] if sees else 0


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges, first and last of each.

    Example:
        >>> ranges([1, 2, 3, 5])
        [(1, 3), (5, 5)]
    """
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def select(
    trainable: Tensor | None,
    packed: Tensor,
    owner: Tensor,
    claim: Tensor | None,
    task: int | Tensor,
    seen: Sequence[tuple[int | Tensor, int | Tensor]],
) -> Tensor:
    """The kernel as a task sees it, of the values of a `PackedWeight`.

    Selects and never multiplies: 0 * NaN of a diverged task would reach all others.

    Args:
        trainable, packed, owner, claim: as in `PackedWeight.values`.
        task: number of the task.
        seen: ranges of owners, numbers or scalars of the owners' dtype.
    """
    # Beside a Python number, TensorFlow would compare copies of owners and claims in int32.
    bounds = [(ops.cast(first, owner.dtype), ops.cast(last, owner.dtype)) for first, last in seen]
    within = [
        ops.logical_and(ops.greater_equal(owner, first), ops.less_equal(owner, last))
        for first, last in bounds
    ]
    if within:
        kernel = ops.where(functools.reduce(ops.logical_or, within), packed, 0.0)
    else:
        kernel = ops.zeros_like(packed)
    if trainable is None:
        return kernel
    return ops.where(ops.equal(claim, ops.cast(task, owner.dtype)), trainable, kernel)


def clear(variable: keras.Variable) -> None:
    """Sets every element to 0."""
    variable.assign(ops.zeros(variable.shape, variable.dtype))


def copy_value(source: keras.Variable, target: keras.Variable) -> None:
    """Gives a variable the value of another one, in memory of its own.

    JAX arrays may be shared, and a training step that may overwrite (donate) its own would take
    the other variable's away.
    """
    target.assign(ops.copy(source))


def values_of(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Copies of the values of variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign_values(variables: Iterable[keras.Variable], values: Iterable[np.ndarray]) -> None:
    """Gives variables such values again."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; whole numbers never are."""
    if "float" not in keras.backend.standardize_dtype(tensor.dtype):
        return True
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(tensor))))
