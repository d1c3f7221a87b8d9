"""The momentum of batch normalisation while a task trains: it grows with the number of steps."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from packnet_tf.backend.distribution import has_replicas
from packnet_tf.backend.keras_internals import all_layers
from packnet_tf.backend.types import Tensor

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


def momentum_after(steps: float | Tensor, momentum: float) -> Tensor:
    """Computes the momentum for an update of moving statistics, at most the layer's own.

    Recent batches weigh more than in a uniform average, which would not forget the network of the
    first steps. This is polynomial-decay averaging.

    Args:
        steps: number or float tensor, updates so far, including this one.
        momentum: the layer's own momentum, 0 to 1.

    Returns:
        A float32 scalar tensor, 0 to 1.

    Example:
        >>> [round(float(momentum_after(n, 0.99)), 3) for n in (4, 1000)]
        [0.5, 0.99]

    Source: Shamir & Zhang 2013, Stochastic Gradient Descent for Non-smooth Optimization,
    section 4.
    """
    steps = ops.cast(steps, "float32") + START
    return ops.minimum(steps / (steps + RECENT), momentum)


class FollowsSteps(_Mixed):
    """Mixin for `BatchNormalization` whose momentum grows with the steps during a call.

    Attributes:
        effective_momentum: function from the layer's own momentum to that of the current step.
        fixed: whether the layer normalises by its moving statistics in training too and never
            updates them.
        examples: counts the examples of its calls in training mode, if it is a variable; all have
            the same weight in the statistics then. A step may call a layer several times.
    """

    plain: type[keras.layers.BatchNormalization]
    effective_momentum: Momentum
    fixed = False
    examples: keras.Variable | None = None

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

    def call(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.fixed:
            kwargs["training"] = False
        if self.examples is not None and kwargs.get("training", args[:1] == (True,)):
            rows = ops.cast(ops.shape(inputs)[0], "float32")
            self.examples.assign(self.examples + rows)
            kept = 1.0 - rows / ops.maximum(self.examples.value, 1.0)
            self.__dict__["effective_momentum"] = lambda own: kept
        token = _normalizing.set(True)
        try:
            return super().call(inputs, *args, **kwargs)
        finally:
            _normalizing.reset(token)

    def _moments(self, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the mean and variance of a batch; of none on this replica, the moving ones.

        The last batch may have fewer examples than there are replicas. The NaN of one without any
        would reach the statistics of all.
        """
        mean, variance = super()._moments(inputs, mask)
        if self.synchronized or not has_replicas():
            return mean, variance
        empty = ops.equal(ops.shape(inputs)[0], 0)
        return (
            ops.where(empty, ops.cast(self.moving_mean, mean.dtype), mean),
            ops.where(empty, ops.cast(self.moving_variance, variance.dtype), variance),
        )

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


def _following_class(cls: type) -> type:
    """Returns a subclass of a batch normalisation class that follows steps, of the same name."""
    if cls not in _FOLLOWING_CLASSES:
        names = {"plain": cls, "__doc__": cls.__doc__, "__module__": cls.__module__}
        _FOLLOWING_CLASSES[cls] = type(cls.__name__, (FollowsSteps, cls), names)
    return _FOLLOWING_CLASSES[cls]
