"""`Auto`: the settings of a search for how much to prune."""

import dataclasses
import itertools
import numbers
import warnings

from packnet_tf.packing.pruning import check_ratio


@dataclasses.dataclass(frozen=True)
class Auto:
    """Prunes as far as validation accuracy allows.

    Tries some of `ratios`, by bisection, each from the weights that the training has left: prunes,
    and retrains for at most `trial_epochs`. The largest ratio whose accuracy is within `max_drop`
    of that before the prune is taken, and the task is retrained with it; with none, nothing is
    released.

    Attributes:
        max_drop: tolerated drop of the metric, in its own unit: 0.01 of an accuracy is one
            percentage point.
        ratios: prune ratios to choose from, ascending, each above 0 and below 1.
        trial_epochs: most epochs of retraining per ratio, at least 1.
        monitor: name of the metric; higher must be better.

    Args:
        step, patience: deprecated. A step means the ratios that releasing it again and again would
            give; patience means `trial_epochs`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> packnet_tf.PackTrainer(net, prune=packnet_tf.Auto(max_drop=0.01))
    """

    max_drop: float
    _: dataclasses.KW_ONLY
    ratios: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95)
    trial_epochs: int = 2
    monitor: str = "accuracy"
    step: dataclasses.InitVar[float | None] = None
    patience: dataclasses.InitVar[int | None] = None

    def __post_init__(self, step: float | None, patience: int | None) -> None:
        given: object = self.ratios
        if step is not None:
            _warn("step=", "ratios=(0.5, 0.7, 0.9)")
            given = _by_steps(check_ratio(step))
        if patience is not None:
            _warn("patience=", "trial_epochs=")
            object.__setattr__(self, "trial_epochs", patience)
        ratios = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        object.__setattr__(self, "ratios", ratios)
        are_numbers = all(_is_number(ratio) for ratio in ratios) and bool(ratios)
        ascend = are_numbers and all(a < b for a, b in itertools.pairwise((0, *ratios, 1)))
        if not (self.max_drop >= 0 and ascend and self.trial_epochs >= 1):
            raise ValueError(
                f"Auto takes max_drop of at least 0, ascending ratios between 0 and 1, and "
                f"trial_epochs of at least 1; got {self}. Write Auto(max_drop=0.01)."
            )

    def check_monitor(self, measured: list[str]) -> None:
        """Refuses a metric that is not measured.

        Args:
            measured: names of the metrics that are measured.

        Raises:
            ValueError: `monitor` is not among them.
        """
        if self.monitor not in measured:
            raise ValueError(
                f"Auto monitors '{self.monitor}', but the metrics are "
                f"{', '.join(map(repr, measured))}. Add it to the trainer's metrics, or write "
                f"Auto(max_drop={self.max_drop:g}, monitor=...) with one of those, of which "
                "higher is better."
            )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _by_steps(step: float) -> list[float]:
    """Returns the ratios that releasing a fraction of what is left again and again gives."""
    ratios: list[float] = []
    left = 1.0 - step
    while step > 0 and 1.0 - left <= max(step, 0.98) and len(ratios) < 100:
        ratios.append(round(1.0 - left, 4))
        left *= 1.0 - step
    return ratios


def _warn(old: str, new: str) -> None:
    text = f"Auto({old}) will go in version 0.4. Write Auto(max_drop, {new})."
    warnings.warn(text, DeprecationWarning, stacklevel=4)
