"""`Auto`: the settings of a search for how much to prune."""

import dataclasses

from packnet_tf.packing.pruning import check_ratio


@dataclasses.dataclass(frozen=True)
class Auto:
    """Prunes as far as validation accuracy allows.

    Each round releases the fraction `step` of the current claim and retrains until accuracy is
    within `max_drop` of its value before the prune. If `patience` epochs do not suffice, the state
    after the last good round is restored, and the task is retrained from there. No round but the
    first leaves less than 1 % of the initial claim.

    Attributes:
        max_drop: tolerated drop of the metric, in its own unit: 0.01 of an accuracy is one
            percentage point.
        step: fraction of the claim that each round releases, above 0 and below 1.
        patience: most epochs of retraining per round.
        monitor: name of the metric; higher must be better.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> packnet_tf.PackTrainer(net, prune=packnet_tf.Auto(max_drop=0.01))
    """

    max_drop: float
    step: float = 0.2
    patience: int = 3
    monitor: str = "accuracy"

    def __post_init__(self) -> None:
        check_ratio(self.step, "step")
        if not (self.max_drop >= 0 and 0 < self.step < 1 and self.patience >= 1):
            raise ValueError(
                f"Auto takes max_drop of at least 0, step between 0 and 1, and patience of at "
                f"least 1 epoch; got {self}. Write Auto(max_drop=0.01)."
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
