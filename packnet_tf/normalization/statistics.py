"""Makes the moving statistics of batch normalisation match the current network.

In training, batch normalisation uses the statistics of each batch; in inference, it uses moving
averages of them. The averages' momentum is meant for long runs: with the 0.999 of
`keras.applications`, an average needs thousands of steps to forget its initial value. A small task
has 20 to 60 steps per epoch. This module makes two corrections, which work for any momentum:

- While a task trains, the momentum grows with the number of steps since the task began or was
  pruned (`momentum_after`). Validation then uses statistics of the current network, without
  additional data.
- Before a commit, the statistics are measured on the training data (`update_statistics`), if these
  are available.
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

# The average covers about the last eighth of the steps: short enough to follow changing weights,
# long enough to average over batches.
RECENT = 8.0
# The initial statistics weigh as much as this many steps. Without them, a first batch of few images
# would make variances almost 0. After ten steps, their weight is 0.0015.
START = 4.0
_normalizing = contextvars.ContextVar("_normalizing", default=False)
_FOLLOWING_CLASSES: dict[type, type] = {}
# Maps a layer's own momentum to the one to use.
Momentum = Callable[[float], float | Tensor]

if TYPE_CHECKING:
    _Mixed = keras.layers.BatchNormalization  # the base class that the mixin expects
else:
    _Mixed = object


def momentum_after(
    steps: float | Tensor, momentum: float, recent: float = RECENT, start: float = START
) -> Tensor:
    """Computes the momentum for an update of moving statistics, at most the layer's own.

    Recent batches weigh more than in a uniform average, which would not forget the network of the
    first steps. This is polynomial-decay averaging.

    Args:
        steps: number or float tensor, updates so far, including this one.
        momentum: the layer's own momentum, 0 to 1.
        recent: the average covers about the last `1 / recent` of the steps.
        start: number of steps that the initial statistics weigh.

    Returns:
        A float32 scalar tensor, 0 to 1.

    Example:
        >>> [round(float(momentum_after(n, 0.99)), 3) for n in (4, 1000)]
        [0.5, 0.99]

    Source: Shamir & Zhang 2013, Stochastic Gradient Descent for Non-smooth Optimization,
    section 4.
    """
    steps = ops.cast(steps, "float32") + start
    return ops.minimum(steps / (steps + recent), momentum)


class FollowsSteps(_Mixed):
    """Mixin for `BatchNormalization` whose momentum grows with the steps during a call.

    Attributes:
        effective_momentum: function from the layer's own momentum to that of the current step.
        fixed: whether the layer normalises by its moving statistics in training too and never
            updates them.
    """

    plain: type[keras.layers.BatchNormalization]
    effective_momentum: Momentum
    fixed = False

    @property
    def momentum(self) -> float | Tensor:
        own = vars(self)["momentum"]
        # Outside a call (in `get_config`, say), return the number that the layer was given.
        if not _normalizing.get():
            return own
        # Keras normalises in this dtype.
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
    """Makes every `BatchNormalization` in a layer use another momentum during calls."""
    for part in all_layers(layer):
        if isinstance(part, keras.layers.BatchNormalization):
            if not isinstance(part, FollowsSteps):
                part.__class__ = _following_class(type(part))
            part.__dict__["effective_momentum"] = effective_momentum


def fix_statistics(layer: keras.layers.Layer) -> None:
    """Makes every `BatchNormalization` in a layer run in inference mode."""
    for part in all_layers(layer):
        if isinstance(part, keras.layers.BatchNormalization):
            if not isinstance(part, FollowsSteps):
                follow_steps(part, lambda own: own)
            part.__dict__["fixed"] = True


@contextlib.contextmanager
def as_plain(layer: keras.layers.Layer) -> Iterator[None]:
    """Restores the original classes within the block, so that files name those."""
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
    """Returns whether a layer contains batch normalisation that uses batch statistics."""
    return any(
        isinstance(part, keras.layers.BatchNormalization)
        and part.trainable
        and not getattr(part, "fixed", False)
        for part in all_layers(layer)
    )


def update_statistics(
    model: keras.Model, data: AnyData, batch_size: int | None = None, steps: int | None = None
) -> None:
    """Measures a model's moving statistics on data, with its current weights.

    It makes one pass in training mode and averages all batches with equal weight ("precise" batch
    normalisation). Weights and random generators do not change. Moving averages in other layers
    than `BatchNormalization` are updated too, and their initial values are removed from them.

    Args:
        model: a Keras model; a `TaskModel` must be the open one. Statistics of frozen layers do
            not change.
        data: the training data, in any form that `predict` accepts and that can be iterated
            repeatedly. Labels are ignored. Arrays are shuffled: data sorted by class would be
            normalised class by class.
        batch_size: batch size for arrays; use that of the training. Default: 32.
        steps: number of batches; default: all.

    Raises:
        ValueError: the data never end, and `steps` is None.

    Example:
        >>> net.prune(0.75)  # and a custom training loop
        >>> packnet_tf.update_statistics(net.open_model, images, batch_size=32)
        >>> net.commit()
    """
    if _are_arrays(data):
        data, batch_size = _Shuffled(data, batch_size or 32), None
    if steps is None:
        check_ends(data, "The data to measure statistics on")
    elif (known_batches(data) or math.inf) <= steps:
        steps = None  # Keras would warn that the data end early
    others = _statistics(model, of_norms=False)
    if not others and not moves_statistics(model):
        return
    # Seeds of random generators, and the model's own counters.
    own = {id(variable) for variable in fixed_variables(model)}
    counters = [v for v in model.non_trainable_variables if not _is_float(v) or id(v) in own]
    every = [*counters, *_statistics(model)]
    before, start = values_of(every), values_of(others)
    try:
        _pass_over(model, data, batch_size, steps)
        moved = [i for i, v in enumerate(values_of(others)) if not np.array_equal(v, start[i])]
        if moved:
            measured = values_of(every)
            _remove_start(
                [others[i] for i in moved],
                [start[i] for i in moved],
                lambda: _pass_over(model, data, batch_size, steps),
            )
            # In that second pass, layers began far from where they should.
            norms = [i for i, v in enumerate(every) if id(v) not in set(map(id, others))]
            assign_values([every[i] for i in norms], [measured[i] for i in norms])
    except BaseException:
        assign_values(every, before)
        raise
    assign_values(counters, before[: len(counters)])


class _Shuffled(keras.utils.PyDataset):
    """Shuffles arrays into batches, in the same order every time."""

    def __init__(self, x: Tensors, batch_size: int) -> None:
        super().__init__()
        as_array = lambda a: a if isinstance(a, np.ndarray) else ops.convert_to_numpy(a)  # noqa: E731
        self._x, self._size = keras.tree.map_structure(as_array, x), batch_size
        self._order = np.random.default_rng(0).permutation(len(keras.tree.flatten(x)[0]))

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, place: int) -> tuple:
        rows = self._order[place * self._size : (place + 1) * self._size]
        return (keras.tree.map_structure(lambda array: array[rows], self._x),)


@keras.saving.register_keras_serializable("packnet_tf")
class StatisticsPass(keras.Model):
    """Calls a model in training mode; use it with `predict`, which then returns zeros."""

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
    with scope_of(strategy), _averaging_uniformly(model) as bind:
        counting = StatisticsPass(model)
        bind(counting.seen)
        if keras.backend.backend() == "jax":
            # `predict` donates the memory of variables, which averages of weights may share.
            for variable in model.variables:
                copy_value(variable, variable)
        try:
            counting.predict(data, batch_size=batch_size, steps=steps, verbose=0)
        finally:
            if keras.backend.backend() == "jax":
                counting.jax_state_sync()


@contextlib.contextmanager
def _averaging_uniformly(model: keras.Model) -> Iterator[Callable[[keras.Variable], None]]:
    """Gives all batches equal weight in the statistics of batch normalisation."""
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
    """Returns the float variables that layers may update in training, with or without norms."""
    found = []
    for layer in all_layers(model, include_self=False):
        if layer.trainable and (of_norms or not isinstance(layer, keras.layers.BatchNormalization)):
            fixed = {id(variable) for variable in fixed_variables(layer)}
            found += [v for v in own_variables(layer) if id(v) in fixed and _is_float(v)]
    return found


def _remove_start(
    variables: list[keras.Variable], start: list[np.ndarray], repeat: Callable[[], None]
) -> None:
    """Removes the initial values from moving averages.

    After n batches with momentum m, an average is `m**n * start + (1 - m**n) * mean`. A second
    pass, from another start, gives `m**n`. A variable that is not such an average keeps the value
    of the first pass.
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


def _following_class(cls: type) -> type:
    """Returns a subclass of a batch normalisation class that follows steps, of the same name."""
    if cls not in _FOLLOWING_CLASSES:
        names = {"plain": cls, "__doc__": cls.__doc__, "__module__": cls.__module__}
        _FOLLOWING_CLASSES[cls] = type(cls.__name__, (FollowsSteps, cls), names)
    return _FOLLOWING_CLASSES[cls]


def _are_arrays(data: AnyData) -> bool:
    leaves = keras.tree.flatten(data)
    return all(isinstance(leaf, np.ndarray) or ops.is_tensor(leaf) for leaf in leaves)


def _is_float(variable: keras.Variable) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)
