"""What searches of how much to prune have in common: rounds that begin from the same weights."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np

from packnet_tf.backend.optimizers import check_resettable
from packnet_tf.tasks.task_model import Phase, TaskModel
from packnet_tf.training import checkpoint
from packnet_tf.training.auto import Auto
from packnet_tf.training.phases import PhaseOptions, Phases


@dataclasses.dataclass
class Round:
    """One round of a search, measured on validation data.

    Attributes:
        ratio: fraction of the initial claim that the round releases.
        after_prune: the metrics right after the release, by name.
        retrained: the metric that judges, after the last epoch of retraining.
        epochs: number of epochs of retraining.
        kept: whether `retrained` is good enough; None while the round lasts.
    """

    ratio: float
    after_prune: dict[str, float]
    retrained: float = 0.0
    epochs: int = 0
    kept: bool | None = None


class Search(Phases, abc.ABC):
    """Base class for phases that try several prune ratios, each from the trained weights.

    The task ends as the last round that was kept, or as after its training if none was.

    Args:
        model, common: as for `Phases`.
        auto: the settings of the search.
        epoch: the epoch whose start begins it.
        retrain_epochs: epochs of retraining, see the subclass.

    Attributes:
        rounds: the rounds so far.

    Raises:
        ValueError: the metric that judges a round is not measured.
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
        auto.check_monitor(list(model.get_metrics_result()))
        check_resettable(model.optimizer)
        self.auto, self.epoch, self.retrain_epochs = auto, epoch, retrain_epochs
        self.rounds: list[Round] = []
        # The values before the first round, and at the end of the last one that was kept.
        self._trained: Sequence[np.ndarray] = ()
        self._best: Sequence[np.ndarray] = ()

    @abc.abstractmethod
    def next_ratio(self) -> float | None:
        """Returns the prune ratio of the next round, judged by those so far; None: no more."""

    @abc.abstractmethod
    def verdict(self) -> bool | None:
        """Returns whether the last round is good enough; None: it goes on."""

    def epochs_after(self) -> int:
        """Returns how many epochs of retraining follow the last round."""
        return 0

    def retraining_epoch(self, epoch: int) -> int | None:
        earlier = sum(entry.epochs for entry in self.rounds if entry.kept is not None)
        return None if epoch < self.epoch else epoch - self.epoch - earlier

    def epoch_begins(self, epoch: int) -> None:
        if epoch >= self.epoch and not self.rounds:
            self.epoch = epoch  # later, if a resumed task has had more epochs than it asks for now
            self.measure("before")
            self._trained = checkpoint.take(self.model)
            self._next()

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        if not self.rounds or self.rounds[-1].kept is not None:
            return
        now = self.rounds[-1]
        now.epochs, now.retrained = now.epochs + 1, logs[f"val_{self.auto.monitor}"]
        now.kept = self.verdict()
        if now.kept is None:
            return
        if now.kept:
            self._best = checkpoint.take(self.model)
        self._next()

    def state(self) -> dict:
        rounds = [dataclasses.asdict(entry) for entry in self.rounds]
        return {**super().state(), "rounds": rounds, "epoch": self.epoch}

    def arrays(self) -> list[np.ndarray]:
        return [*self._trained, *self._best]

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        self.rounds = [Round(**entry) for entry in state["rounds"]]
        if self.rounds:
            self.epoch = state["epoch"]
        count = len(checkpoint.variables_of(self.model))
        self._trained, self._best = arrays[:count], arrays[count:]
        self._set_end()

    def _next(self) -> None:
        ratio = self.next_ratio()
        if ratio is not None:
            self._return_to(self._trained)
            self.net.prune_to(ratio, self.criterion)
            self.begin_retraining()
            self.measure("after")
            self.rounds.append(Round(ratio, self.around_prune["after"]))
            return
        self._return_to(self._best or self._trained)
        if self.model.current_phase == Phase.TRAINING:  # no round was kept
            self.net.prune(0.0)
        kept = [entry.after_prune for entry in self.rounds if entry.kept]
        self.around_prune["after"] = kept[-1] if kept else self.around_prune["before"]
        if self.epochs_after():
            self.begin_retraining()
        self._trained = self._best = ()
        self._set_end()

    def _set_end(self) -> None:
        if self.rounds and self.rounds[-1].kept is not None and self.next_ratio() is None:
            rounds = sum(entry.epochs for entry in self.rounds)
            self.epochs = self.epoch + rounds + self.epochs_after()

    def _return_to(self, values: Sequence[np.ndarray]) -> None:
        checkpoint.put_back(self.model, values)
        self.accept_phase()
