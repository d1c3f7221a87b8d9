"""Searches for a prune ratio: releases and retrains in rounds until accuracy drops too far."""

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import numpy as np

from packnet_tf.backend.optimizers import check_resettable
from packnet_tf.packing.pruning import check_ratio
from packnet_tf.tasks.task_model import Phase, TaskModel
from packnet_tf.trainer import checkpoint
from packnet_tf.training.phases import PhaseOptions, Phases


@dataclasses.dataclass(frozen=True)
class Auto:
    """Prunes as far as validation accuracy allows.

    Each round releases the fraction `step` of the current claim and retrains until accuracy is
    within `max_drop` of its value before the prune. If `patience` epochs do not suffice, the state
    after the last good round is restored, and the task is retrained from there.

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


@dataclasses.dataclass
class Round:
    """One round of the search; accuracies are on validation data, 0 to 1.

    Attributes:
        sparsity: fraction of the initial claim that is released after the round.
        pruned: accuracy right after the release.
        retrained: accuracy after the last epoch of retraining.
        epochs: number of epochs of retraining.
        kept: whether the accuracy recovered.
    """

    sparsity: float
    pruned: float
    retrained: float | None = None
    epochs: int = 0
    kept: bool = False


class RatioSearch(Phases):
    """The phases of a task whose prune ratio is searched for.

    Args:
        model, common: as for `Phases`.
        auto: the settings of the search.
        epoch: the epoch whose start begins the search.
        retrain_epochs: epochs of retraining at the ratio that was found.

    Attributes:
        rounds: the rounds so far.
    """

    epoch: int

    def __init__(
        self,
        model: TaskModel,
        auto: Auto,
        epoch: int,
        retrain_epochs: int,
        **common: Unpack[PhaseOptions],
    ) -> None:
        super().__init__(model, **common)
        check_resettable(model.optimizer)
        self.auto, self.epoch, self._retrain_epochs = auto, epoch, retrain_epochs
        self.rounds: list[Round] = []
        self._good: list[np.ndarray] = []
        self._found_at: int | None = None  # the epoch at which retraining begins

    def retraining_epoch(self, epoch: int) -> int | None:
        if epoch < self.epoch:
            return None
        return 0 if self._found_at is None else epoch - self._found_at

    def epoch_begins(self, epoch: int) -> None:
        if epoch < self.epoch or self._found_at is not None:
            return
        if not self.rounds:
            self.measure("before")
            self._good = checkpoint.take(self.model)
        if not self.rounds or self.rounds[-1].kept:
            self._release(epoch)

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        if not self.rounds or self._found_at is not None:
            return
        now = self.rounds[-1]
        now.epochs, now.retrained = now.epochs + 1, logs[f"val_{self.auto.monitor}"]
        if now.retrained >= self._before() - self.auto.max_drop:
            now.kept, self._good = True, checkpoint.take(self.model)
        elif now.epochs >= self.auto.patience:
            self._return_to_best(epoch + 1)

    def state(self) -> dict:
        rounds = [dataclasses.asdict(entry) for entry in self.rounds]
        return {**super().state(), "rounds": rounds, "found_at": self._found_at}

    def arrays(self) -> list[np.ndarray]:
        return self._good

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        self.rounds = [Round(**entry) for entry in state["rounds"]]
        self._good = arrays
        if state["found_at"] is not None:
            self._found(state["found_at"])

    def _before(self) -> float:
        return self.around_prune["before"][self.auto.monitor]

    def _release(self, epoch: int) -> None:
        released = self.net.prune(self.auto.step, self.criterion)
        if not any(released.values()):  # `step` of so small a claim rounds to 0
            self._return_to_best(epoch)
            return
        self.begin_retraining()
        self.measure("after")
        sparsity = self.net.state.claimed_share()[1]
        self.rounds.append(Round(sparsity, self.around_prune["after"][self.auto.monitor]))

    def _return_to_best(self, epoch: int) -> None:
        """Restores the last good state and begins the final retraining."""
        checkpoint.put_back(self.model, self._good)
        self.accept_phase()
        if self.model.current_phase == Phase.TRAINING:  # nothing could be released
            self.net.prune(0.0)
        self.begin_retraining()
        self._found(epoch)
        self._good = []

    def _found(self, epoch: int) -> None:
        """Ends the search: retraining begins at `epoch`, which sets the number of epochs."""
        self._found_at, self.epochs = epoch, epoch + self._retrain_epochs
