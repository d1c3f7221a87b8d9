"""Measures moving statistics on training data, with the weights that a network has now."""

import contextlib
import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.datasets import check_ends, known_batches
from packnet_tf.backend.distribution import average_replicas, scope_of, strategy_of_model
from packnet_tf.backend.keras_internals import all_layers, fixed_variables
from packnet_tf.backend.types import AnyData, Tensor, Tensors
from packnet_tf.normalization.batches import Shuffled, are_arrays
from packnet_tf.normalization.following import follow_steps, moves_statistics
from packnet_tf.packing.layers import own_variables
from packnet_tf.packing.weight import assign_values, copy_value, values_of

SPECTRAL = keras.layers.SpectralNormalization  # assigns its layer's kernel in training mode


class NoBatchesError(ValueError):
    """Raised for data that have no batches."""


def update_statistics(
    model: keras.Model, data: AnyData, batch_size: int | None = None, steps: int | None = None
) -> None:
    """Measures a model's moving statistics on data, with its current weights.

    It makes one pass in training mode and averages all batches, weighted by their numbers of
    examples ("precise" batch normalisation). Weights and random generators do not change. Moving
    averages in other layers than `BatchNormalization` are updated too, and their initial values are
    removed from them.

    Args:
        model: a Keras model; a `TaskModel` must be the open one. Statistics of frozen layers do
            not change.
        data: the training data, in any form that `predict` accepts and that can be iterated
            repeatedly. Labels are ignored. Arrays are shuffled: data sorted by class would be
            normalised class by class.
        batch_size: batch size for arrays; use that of the training. Default: 32.
        steps: number of batches; default: all.

    Raises:
        NoBatchesError: the data have no batches, as a generator that is used up.
        ValueError: the data never end, and `steps` is None.

    Example:
        >>> net.prune(0.75)  # and a custom training loop
        >>> packnet_tf.update_statistics(net.open_model, images, batch_size=32)
        >>> net.commit()
    """
    others = _statistics(model, of_norms=False)
    if not others and not moves_statistics(model):
        _note_measured(model)
        return
    if are_arrays(data):
        data, batch_size = Shuffled(data, batch_size or 32), None
    if steps is None:
        check_ends(data, "The data to measure statistics on")
    elif (known_batches(data) or math.inf) <= steps:
        steps = None  # Keras would warn that the data end early
    # Seeds of random generators, and the model's own counters.
    own = {id(variable) for variable in fixed_variables(model)}
    counters = [v for v in model.non_trainable_variables if not _is_float(v) or id(v) in own]
    counters += [
        v for part in all_layers(model) if isinstance(part, SPECTRAL) for v in part.variables
    ]
    every = [*counters, *_statistics(model)]
    before, start = values_of(every), values_of(others)
    try:
        _pass_over(model, data, batch_size, steps)
        moved = [i for i, v in enumerate(values_of(others)) if not np.array_equal(v, start[i])]
        if moved:
            measured = values_of(every)
            averages = [others[i] for i in moved]
            alike = [(variable, None) for variable in averages]

            def repeat() -> None:
                _pass_over(model, data, batch_size, steps)
                average_replicas(strategy_of_model(model), alike)

            average_replicas(strategy_of_model(model), alike)
            _remove_start(averages, [start[i] for i in moved], repeat)
            # In that second pass, layers began far from where they should.
            norms = [i for i, v in enumerate(every) if id(v) not in set(map(id, others))]
            assign_values([every[i] for i in norms], [measured[i] for i in norms])
    except BaseException:
        assign_values(every, before)
        raise
    assign_values(counters, before[: len(counters)])
    _note_measured(model)


def _note_measured(model: keras.Model) -> None:
    note = getattr(model, "statistics_measured", None)  # of a `TaskModel`
    if note is not None:
        note()


@keras.saving.register_keras_serializable("packnet_tf")
class StatisticsPass(keras.Model):
    """Calls a model in training mode; use it with `predict`, which then returns zeros."""

    def __init__(self, model: keras.Model):
        super().__init__(autocast=False)
        self.model = model

    def counter(self) -> keras.Variable:
        """Adds a variable that is 0."""
        return self.add_weight(
            shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False,
            name="examples",
        )  # fmt: skip

    def call(self, inputs: Tensors) -> Tensor:
        outputs = keras.tree.flatten(self.model(inputs, training=True))
        return ops.zeros((ops.shape(outputs[0])[0], 1))


def _pass_over(
    model: keras.Model, data: AnyData, batch_size: int | None, steps: int | None
) -> None:
    strategy = strategy_of_model(model)
    with scope_of(strategy), _averaging_uniformly(model) as count:
        counting = StatisticsPass(model)
        count(counting)
        if keras.backend.backend() == "jax":
            # `predict` donates the memory of variables, which averages of weights may share.
            for variable in model.variables:
                copy_value(variable, variable)
        try:
            counting.predict(data, batch_size=batch_size, steps=steps, verbose=0)
        except UnboundLocalError as error:  # of Keras, which counts on a first batch
            raise NoBatchesError(
                "The data to measure statistics on have no batches. A dataset made from a "
                "generator must begin again for every iterator: give one that does, or arrays."
            ) from error
        finally:
            if keras.backend.backend() == "jax":
                counting.jax_state_sync()
        moving = [
            (variable, norm.__dict__["examples"])  # that this replica has seen
            for norm in _norms(model)
            if norm.trainable
            for variable in (norm.moving_mean, norm.moving_variance)
            if variable is not None
        ]
        average_replicas(strategy, moving)


def _norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [p for p in all_layers(model) if isinstance(p, keras.layers.BatchNormalization)]


@contextlib.contextmanager
def _averaging_uniformly(model: keras.Model) -> Iterator[Callable[[StatisticsPass], None]]:
    """Gives all examples equal weight in the statistics of batch normalisation."""
    norms = _norms(model)
    old = [(type(norm), vars(norm).get("effective_momentum")) for norm in norms]

    def count(counting: StatisticsPass) -> None:
        for norm in norms:
            follow_steps(norm, lambda own: own)
            norm.__dict__["examples"] = counting.counter()

    try:
        yield count
    finally:
        for norm, (cls, effective) in zip(norms, old, strict=True):
            norm.__class__ = cls
            norm.__dict__["effective_momentum"] = effective
            norm.__dict__.pop("examples", None)


def _statistics(model: keras.Model, of_norms: bool = True) -> list[keras.Variable]:
    """Returns the float variables that layers may update in training, with or without norms."""
    found = []
    for layer in all_layers(model, include_self=False):
        if isinstance(layer, SPECTRAL):
            continue
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
    of the first pass, unless every start grows by the same: such a counter of steps gets its own
    start back.
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
        if np.all(np.abs(rest - 1.0) < 1e-5):
            variable.assign(s)
        elif 0.0 <= left < 1.0 and np.allclose(rest, left, atol=1e-3):
            variable.assign((a - left * s) / (1.0 - left))
        else:
            variable.assign(a)


def _is_float(variable: keras.Variable) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)
