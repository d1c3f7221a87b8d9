"""`PackedWeight`: the four variables behind a kernel that several tasks share."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.types import Tensor
from packnet_tf.packing.pruning import check_released, claimable, count_by_owner, magnitude

# `ops.where` gets the `value` of each variable, because JAX does not accept variables there.
MAX_TASKS = 254  # that own weights; owners and claims are uint8
OVERLAY_NUMBER = 255  # instead of its own number, for a task with an overlay, which owns no weights
Criterion = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclasses.dataclass(eq=False)
class PackedWeight:
    """The variables behind one kernel. All have the kernel's shape.

    `packed` holds committed values. No optimizer ever gets it, so weight decay, constraints and
    moving averages of `trainable` cannot reach committed values.

    Attributes:
        trainable: float variable that the optimizer trains; None in a view that cannot be trained.
        packed: float variable; the final value of an owned weight, the restart value of a free
            one.
        owner: uint8 variable (see `owner_dtype`); the 1-based number of the task that owns the
            weight, 0 = free.
        claim: variable of the same dtype; the number of the task that trains the weight, 0 =
            none. None where `trainable` is None.
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
        """Values of the four variables, as `select` takes them; None for a missing variable."""
        trainable = None if self.trainable is None else self.trainable.value
        claim = None if self.claim is None else self.claim.value
        return trainable, self.packed.value, self.owner.value, claim

    @property
    def trained(self) -> tuple[keras.Variable, keras.Variable]:
        """The variables `trainable` and `claim`.

        Raises:
            RuntimeError: the view cannot be trained, so it has neither.
        """
        if self.trainable is None or self.claim is None:
            raise RuntimeError(
                "This view of the weight cannot be trained: take the model of the open task, "
                "net.open_model."
            )
        return self.trainable, self.claim

    def view(self, sees: Sequence[int]) -> Tensor:
        """Returns the kernel as a task sees it, a float tensor of the kernel's shape.

        Args:
            sees: numbers of the tasks whose weights are visible, ascending. The last is the
                task's own number, and its claim is visible too. Empty: all weights are 0.
        """
        return select(*self.values, own_number(sees), ranges(sees))

    def restart(self, values: np.ndarray | Tensor) -> None:
        """Assigns restart values to the free weights."""
        free = ops.equal(self.owner, 0)
        self.packed.assign(ops.where(free, values, self.packed.value))

    def open(self, sees: Sequence[int], ratio: float = 1.0) -> None:
        """Claims the fraction `ratio` of the free weights for a task; `sees` as for `view`."""
        trainable, claim = self.trained
        chosen = ops.equal(self.owner, 0)
        if ratio < 1.0:
            start, free = ops.convert_to_numpy(self.packed), ops.convert_to_numpy(chosen)
            chosen = ops.convert_to_tensor(claimable(start, free, ratio))
        # Only claimed weights are non-zero here, so decay and regularizers act on them alone.
        trainable.assign(ops.where(chosen, self.packed.value, 0.0))
        claim.assign(ops.cast(chosen, claim.dtype) * own_number(sees))

    def seen(self, sees: Sequence[int]) -> np.ndarray:
        """Returns a bool array: the weights that a task sees; `sees` as for `view`."""
        seen = np.isin(ops.convert_to_numpy(self.owner), sees)
        if self.claim is not None:
            seen |= ops.convert_to_numpy(self.claim) == own_number(sees)
        return seen

    def earlier(self, sees: Sequence[int]) -> Tensor:
        """Returns the kernel of the earlier tasks that a task sees; `sees` as for `view`."""
        return select(None, self.packed.value, self.owner.value, None, 0, ranges(sees[:-1]))

    def changes(self, sees: Sequence[int]) -> np.ndarray:
        """Returns the differences of the trained values from the kernel of the earlier tasks."""
        trainable, _ = self.trained
        return ops.convert_to_numpy(ops.subtract(trainable.value, self.earlier(sees)))

    def choose(self, ratio: float, criterion: Criterion = magnitude) -> np.ndarray:
        """Returns a bool array: the weights that pruning by `ratio` would release."""
        claim = ops.convert_to_numpy(self.claim) > 0
        values = ops.convert_to_numpy(self.trainable)
        return check_released(criterion(values, claim, ratio), claim, ratio, criterion)

    def release(self, chosen: np.ndarray) -> None:
        """Removes the chosen weights from the claim; they count as 0 from now on."""
        trainable, claim = self.trained
        claim.assign(ops.where(chosen, ops.cast(0, claim.dtype), claim.value))
        trainable.assign(ops.where(chosen, 0.0, trainable.value))

    def commit(self, task: int, keep_restart_values: bool) -> None:
        """Makes task number `task` the owner of its claim."""
        trainable, claim = self.trained
        claimed = ops.equal(claim, task)
        self.packed.assign(ops.where(claimed, trainable.value, self.packed.value))
        self.owner.assign(ops.where(claimed, ops.cast(task, self.owner.dtype), self.owner.value))
        clear(claim)
        if not keep_restart_values:
            free = ops.equal(self.owner, 0)
            self.packed.assign(ops.where(free, 0.0, self.packed.value))

    def give_back(self, task: int, keep_values: bool) -> None:
        """Frees the weights of task number `task`."""
        its = ops.equal(self.owner, task)
        if not keep_values:
            self.packed.assign(ops.where(its, 0.0, self.packed.value))
        self.owner.assign(ops.where(its, ops.cast(0, self.owner.dtype), self.owner.value))

    def owner_counts(self, tasks: int) -> list[int]:
        """Counts the free weights and those of task 1, task 2, ... (`tasks + 1` counts)."""
        return count_by_owner(ops.convert_to_numpy(self.owner), tasks)

    def owned(self, task: int) -> int:
        """Counts the weights that task number `task` owns."""
        return int(np.count_nonzero(ops.convert_to_numpy(self.owner) == task))

    def claimed(self) -> int:
        """Counts the weights that the open task claims."""
        return int(np.count_nonzero(ops.convert_to_numpy(self.claim)))

    def began(self, claim_ratio: float) -> int:
        """Counts the weights that the open task claimed when it was added."""
        return round(claim_ratio * int(np.count_nonzero(ops.convert_to_numpy(self.owner) == 0)))

    def missing_to(self, sparsity: float, claim_ratio: float) -> int:
        """Counts the weights still to release to reach `sparsity` of the initial claim."""
        began = self.began(claim_ratio)
        return max(0, self.claimed() - (began - round(sparsity * began)))

    def share_to(self, sparsity: float, claim_ratio: float) -> float:
        """Returns `missing_to` as a fraction of the current claim."""
        return self.missing_to(sparsity, claim_ratio) / max(1, self.claimed())

    def owned_are_finite(self) -> bool:
        """Returns whether every weight that a committed task owns is finite."""
        return is_finite(ops.where(ops.greater(self.owner, 0), self.packed.value, 0.0))

    def claim_is_finite(self) -> bool:
        """Returns whether every weight that the open task claims is finite."""
        trainable, claim = self.trained
        return is_finite(ops.where(ops.greater(claim, 0), trainable.value, 0.0))


@dataclasses.dataclass(eq=False)
class OverlaidWeight(PackedWeight):
    """A packed weight in the model of a task with an overlay.

    The task claims weights that other tasks own, so `trainable` and `claim` belong to its model
    alone, during training and after the commit. `packed` and `owner` are those of the store. A
    weight that leaves the claim has the earlier tasks' value again.
    """

    def open(self, sees: Sequence[int], ratio: float = 1.0) -> None:
        """Claims all weights, which start as the earlier tasks have them."""
        trainable, claim = self.trained
        trainable.assign(self.earlier(sees))
        claim.assign(ops.full(claim.shape, own_number(sees), claim.dtype))

    def commit(self, task: int, keep_restart_values: bool) -> None:
        """Does nothing: the claim becomes the task's overlay, which its record stores."""

    def owned(self, task: int) -> int:
        """Counts the weights that the task overrides."""
        return self.claimed()

    def began(self, claim_ratio: float) -> int:
        return math.prod(self.owner.shape)


def choose_all(
    weights: Mapping[str, PackedWeight],
    ratios: Mapping[str, float],
    criterion: Criterion,
) -> dict[str, np.ndarray]:
    """Returns the weights that pruning every claim by its ratio would release.

    Args:
        weights: the packed weights by path.
        ratios: the prune ratio of each weight, 0 to 1, by path.
        criterion: see `PackNet.prune`.

    Returns:
        A bool array per path, of the weight's shape.

    Raises:
        ValueError: the criterion fails; the message names the layer.
    """
    chosen = {}
    for path, weight in weights.items():
        try:
            chosen[path] = weight.choose(ratios[path], criterion)
        except ValueError as error:
            raise ValueError(f"layer '{path}': {error}") from error
    return chosen


def choose_places(
    weights: Mapping[str, PackedWeight],
    sees: Sequence[int],
    count: int,
    criterion: Criterion,
    gradients: Sequence[np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Returns the weights that leave the claim of a task with an overlay.

    It ranks the weights of all layers together, by their changes. Adam and its relatives change all
    weights about as fast, whatever their gradients are, so changes alone say little there: they are
    multiplied by the typical gradients.

    Args:
        weights: the packed weights by path.
        sees: numbers of the tasks whose weights the task sees, see `PackedWeight.view`.
        count: how many weights leave the claim.
        criterion: see `PackNet.prune`; it gets the differences from the earlier tasks' values.
        gradients: root mean squares of the gradients, an array for each packed weight; None: not
            known.

    Returns:
        A bool array per path, of the weight's shape.

    Raises:
        ValueError: the criterion fails.
    """
    claims = [ops.convert_to_numpy(weight.claim) > 0 for weight in weights.values()]
    changes = np.concatenate([weight.changes(sees).reshape(-1) for weight in weights.values()])
    if gradients is not None:
        changes = changes * np.concatenate([sizes.reshape(-1) for sizes in gradients])
    claim = np.concatenate([claim.reshape(-1) for claim in claims])
    ratio = count / max(1, int(np.count_nonzero(claim)))
    chosen = check_released(criterion(changes, claim, ratio), claim, ratio, criterion)
    parts = np.split(chosen, np.cumsum([claim.size for claim in claims])[:-1])
    shapes = [claim.shape for claim in claims]
    return {
        path: part.reshape(shape) for path, part, shape in zip(weights, parts, shapes, strict=True)
    }


def own_number(sees: Sequence[int]) -> int:
    """Returns a task's own number, the last of those it sees; 0 if it sees none."""
    return sees[-1] if sees else 0


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Groups ascending numbers into ranges (first, last), both inclusive.

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
    """Computes the kernel as a task sees it from the values of a `PackedWeight`.

    It selects and never multiplies: 0 * NaN of a diverged task would reach all others.

    Args:
        trainable, packed, owner, claim: as in `PackedWeight.values`.
        task: the task's number.
        seen: ranges of visible owners; Python numbers, or scalars of the owners' dtype.
    """
    # With Python numbers, TensorFlow would cast owners and claims to int32 to compare them.
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
    """Copies a variable's value to another variable.

    The target gets its own memory: JAX arrays may be shared, and a training step that donates
    its buffers would invalidate the other variable.
    """
    target.assign(ops.copy(source))


def values_of(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Returns copies of the values of variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign_values(variables: Iterable[keras.Variable], values: Iterable[np.ndarray]) -> None:
    """Assigns values, such as those of `values_of`, to variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def of_kind(variable: keras.Variable, values: np.ndarray) -> np.ndarray:
    """Returns values of a file as an array, if they are of the same kind as a variable.

    Args:
        variable: of floats or of integers.
        values: values to assign to it.

    Raises:
        ValueError: the values are of another kind, such as integers or complex numbers for floats.
    """
    array = np.asarray(values)
    floats = ["float" in str(dtype) for dtype in (array.dtype, variable.dtype)]
    if floats[0] != floats[1] or array.dtype.kind not in "fiubV":
        raise ValueError(
            f"'{variable.path}' has values of dtype {array.dtype}; expected {variable.dtype}"
        )
    return array


def is_finite(tensor: Tensor) -> bool:
    """Returns whether every element is finite; integers always are."""
    if "float" not in keras.backend.standardize_dtype(tensor.dtype):
        return True
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(tensor))))
