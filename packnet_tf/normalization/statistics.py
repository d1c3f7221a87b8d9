"""Moving statistics that are those of the network that answers.

A layer that normalises by batches in training answers by moving statistics, an average whose
momentum was chosen for long runs: with the 0.999 of `keras.applications` it needs thousands of
steps to forget, and the 20 to 60 steps an epoch of a small task never get there. Two things mend
that, whatever the momentum:

- While a task trains, its momentum grows with the steps since the task or its prune began
  (`momentum_after`), so that validation sees the network of now. This needs no data.
- Before a commit the statistics are measured anew on the training data (`update_statistics`),
  wherever those are at hand.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.datasets import check_ends, known_batches
from packnet_tf.backend.distribution import scope_of
from packnet_tf.backend.keras_internals import all_layers, fixed_variables
from packnet_tf.backend.types import AnyData, Tensor, Tensors
from packnet_tf.packing.layers import own_variables
from packnet_tf.packing.weight import assign_values, copy_value, values_of

# An average over the last eighth of the steps: short enough to follow weights that move, long
# enough to level out batches.
RECENT = 8.0
# What the statistics were before counts for some steps: one batch of a few images would make
# variances of nearly 0. After ten steps 0.0015 of it is left.
START = 4.0
_normalizing = contextvars.ContextVar("_normalizing", default=False)
_CLASSES: dict[type, type] = {}
# From a layer's own momentum to the one to use.
Momentum = Callable[[float], float | Tensor]

if TYPE_CHECKING:
    _Mixed = keras.layers.BatchNormalization  # what the mixin is mixed into
else:
    _Mixed = object


def momentum_after(
    steps: float | Tensor, momentum: float, recent: float = RECENT, start: float = START
) -> Tensor:
    """The momentum of an update of statistics, at most the layer's own.

    It weighs recent batches more than an equal-weighted average does, which would not forget the
    network of the first steps: polynomial-decay averaging, Shamir & Zhang 2013, section 4.

    Args:
        steps: float tensor or number, how many updates there have been, this one included.
        momentum: the layer's own, 0 to 1.
        recent: the average is over about the last `1 / recent` of the steps.
        start: steps that what the statistics began with counts for.

    Example:
        >>> [round(float(momentum_after(n, 0.99)), 3) for n in (4, 1000)]
        [0.5, 0.99]
    """
    steps = ops.cast(steps, "float32") + start
    return ops.minimum(steps / (steps + recent), momentum)


class FollowsSteps(_Mixed):
    """Mixin for a `BatchNormalization` whose momentum grows with the steps while it is called.

    Attributes:
        effective_momentum: from the layer's own momentum to that of this step.
        fixed: whether it normalises by its moving statistics in training too, and never moves them.
    """

    plain: type[keras.layers.BatchNormalization]
    effective_momentum: Momentum
    fixed = False

    @property
    def momentum(self) -> float | Tensor:
        own = vars(self)["momentum"]
        # Elsewhere, in get_config above all, it is the number that the layer was given.
        if not _normalizing.get():
            return own
        # The precision that Keras normalises in.
        return ops.cast(
            self.effective_momentum(own), keras.backend.result_type(self.compute_dtype, "float32")
        )

    @momentum.setter
    def momentum(self, value: float) -> None:
        self.__dict__["momentum"] = value

    def call(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.fixed:
            kwargs["training"] = False
        token = _normalizing.set(True)
        try:
            return super().call(*args, **kwargs)
        finally:
            _normalizing.reset(token)

    @classmethod
    def from_config(cls, config: dict) -> keras.layers.BatchNormalization:
        return cls.plain.from_config(config)


def follow_steps(layer: keras.layers.Layer, effective_momentum: Momentum) -> None:
    """Has every `BatchNormalization` in a layer use another momentum while it is called."""
    for part in all_layers(layer):
        if isinstance(part, keras.layers.BatchNormalization):
            if not isinstance(part, FollowsSteps):
                part.__class__ = _following(type(part))
            part.__dict__["effective_momentum"] = effective_momentum


def fix_statistics(layer: keras.layers.Layer) -> None:
    """Has every `BatchNormalization` in a layer answer as in inference."""
    for part in all_layers(layer):
        if isinstance(part, keras.layers.BatchNormalization):
            if not isinstance(part, FollowsSteps):
                follow_steps(part, lambda own: own)
            part.__dict__["fixed"] = True


@contextlib.contextmanager
def as_plain(layer: keras.layers.Layer) -> Iterator[None]:
    """Within it layers have their own classes, as files are to name them."""
    parts = [part for part in all_layers(layer) if isinstance(part, FollowsSteps)]
    classes = [type(part) for part in parts]
    for part in parts:
        part.__class__ = part.plain
    try:
        yield
    finally:
        for part, cls in zip(parts, classes, strict=True):
            part.__class__ = cls


def moves_statistics(layer: keras.layers.Layer) -> bool:
    """Whether training normalises by batches anywhere in a layer."""
    return any(
        isinstance(part, keras.layers.BatchNormalization)
        and part.trainable
        and not getattr(part, "fixed", False)
        for part in all_layers(layer)
    )


def update_statistics(
    model: keras.Model, data: AnyData, batch_size: int | None = None, steps: int | None = None
) -> None:
    """Measures the moving statistics of a model on data, its weights being what they are now.

    One pass in training mode, in which every batch counts alike ("precise" batch normalisation).
    Weights and random generators stay as they are. Statistics of other layers than
    `BatchNormalization` are freed of the values they began with, if they are moving averages.

    Args:
        model: a Keras model; of a `TaskModel`, the open one. In layers that are frozen, statistics
            stand still.
        data: the training data, in any form that `predict` takes and that can be gone over again;
            labels in it are not looked at. Arrays are mixed, as `fit` does: sorted by class, they
            would be normalised class by class.
        batch_size: of data given as arrays; use that of the training. Default: 32.
        steps: batches to look at; default: all.

    Example:
        >>> net.prune(0.75)  # and a training loop of your own
        >>> packnet_tf.update_statistics(net.open_model, images, batch_size=32)
        >>> net.commit()
    """
    if _are_arrays(data):
        data, batch_size = Mixed(data, batch_size or 32), None
    if steps is None:
        check_ends(data, "The data to measure statistics on")
    elif (known_batches(data) or math.inf) <= steps:
        steps = None  # Keras warns of data that end before
    others = _statistics(model, of_norms=False)
    if not others and not moves_statistics(model):
        return
    # Random generators, and what the model counts itself.
    own = {id(variable) for variable in fixed_variables(model)}
    counters = [v for v in model.non_trainable_variables if not _is_float(v) or id(v) in own]
    every = [*counters, *_statistics(model)]
    before, start = values_of(every), values_of(others)
    try:
        _pass_over(model, data, batch_size, steps)
        moved = [i for i, v in enumerate(values_of(others)) if not np.array_equal(v, start[i])]
        if moved:
            _free_of_start(
                [others[i] for i in moved],
                [start[i] for i in moved],
                lambda: _pass_over(model, data, batch_size, steps),
            )
    except BaseException:
        assign_values(every, before)
        raise
    assign_values(counters, before[: len(counters)])


class Mixed(keras.utils.PyDataset):
    """Batches of arrays, in a random order that is always the same."""

    def __init__(self, x: Tensors, batch_size: int) -> None:
        super().__init__()
        self._x, self._size = x, batch_size
        self._order = np.random.default_rng(0).permutation(len(keras.tree.flatten(x)[0]))

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, place: int) -> tuple:
        rows = self._order[place * self._size : (place + 1) * self._size]
        take = lambda array: ops.convert_to_numpy(array)[rows]  # noqa: E731
        return (keras.tree.map_structure(take, self._x),)


@keras.saving.register_keras_serializable("packnet_tf")
class StatisticsPass(keras.Model):
    """Calls a model in training mode and answers with nothing; made to `predict`."""

    def __init__(self, model: keras.Model):
        super().__init__(autocast=False)
        self.model = model
        self.seen = self.add_weight(
            shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False,
            name="seen",
        )  # fmt: skip

    def call(self, inputs: Tensors) -> Tensor:
        self.seen.assign(self.seen + 1.0)
        outputs = keras.tree.flatten(self.model(inputs, training=True))
        return ops.zeros((ops.shape(outputs[0])[0], 1))


def _pass_over(
    model: keras.Model, data: AnyData, batch_size: int | None, steps: int | None
) -> None:
    strategy = getattr(model, "distribute_strategy", None)
    with scope_of(strategy), _weighing_alike(model) as bind:
        counting = StatisticsPass(model)
        bind(counting.seen)
        if keras.backend.backend() == "jax":
            # Predicting overwrites the memory of variables, which averages of weights may share.
            for variable in model.variables:
                copy_value(variable, variable)
        try:
            counting.predict(data, batch_size=batch_size, steps=steps, verbose=0)
        finally:
            if keras.backend.backend() == "jax":
                counting.jax_state_sync()


@contextlib.contextmanager
def _weighing_alike(model: keras.Model) -> Iterator[Callable[[keras.Variable], None]]:
    """Within it every batch counts alike in the statistics of batch normalisation."""
    norms = [p for p in all_layers(model) if isinstance(p, keras.layers.BatchNormalization)]
    old = [(type(norm), vars(norm).get("effective_momentum")) for norm in norms]

    def bind(seen: keras.Variable) -> None:
        follow_steps(
            model, lambda own: momentum_after(seen.value - 1.0, 1.0, recent=1.0, start=0.0)
        )

    try:
        yield bind
    finally:
        for norm, (cls, effective) in zip(norms, old, strict=True):
            norm.__class__ = cls
            norm.__dict__["effective_momentum"] = effective


def _statistics(model: keras.Model, of_norms: bool = True) -> list[keras.Variable]:
    """What layers may move in training; those of batch normalisation among it, or not."""
    found = []
    for layer in all_layers(model, include_self=False):
        if layer.trainable and (of_norms or not isinstance(layer, keras.layers.BatchNormalization)):
            fixed = {id(variable) for variable in fixed_variables(layer)}
            found += [v for v in own_variables(layer) if id(v) in fixed and _is_float(v)]
    return found


def _free_of_start(
    variables: list[keras.Variable], start: list[np.ndarray], repeat: Callable[[], None]
) -> None:
    """Takes what moving averages began with out of them.

    After n batches of momentum m an average is `m**n * start + (1 - m**n) * mean`. A pass from
    another start tells `m**n`. What is no average stays as the first pass has left it.
    """
    first = values_of(variables)
    far = [1e3 * (1.0 + np.abs(value).max()) for value in first]
    assign_values(variables, [value + d for value, d in zip(start, far, strict=True)])
    repeat()
    for variable, a, b, s, d in zip(
        variables, first, values_of(variables), start, far, strict=True
    ):
        rest = (b - a) / d
        left = float(np.mean(rest))
        average = 0.0 <= left < 1.0 and np.allclose(rest, left, atol=1e-3)
        variable.assign((a - left * s) / (1.0 - left) if average else a)


def _following(cls: type) -> type:
    """The class of a batch normalisation that follows the steps, under the name of its own."""
    if cls not in _CLASSES:
        names = {"plain": cls, "__doc__": cls.__doc__, "__module__": cls.__module__}
        _CLASSES[cls] = type(cls.__name__, (FollowsSteps, cls), names)
    return _CLASSES[cls]


def _are_arrays(data: AnyData) -> bool:
    leaves = keras.tree.flatten(data)
    return all(isinstance(leaf, np.ndarray) or ops.is_tensor(leaf) for leaf in leaves)


def _is_float(variable: keras.Variable) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)
