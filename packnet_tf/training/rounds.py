"""What searches of how much to prune have in common: rounds that are kept or undone."""

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
from packnet_tf.training.values import as_numbers


@dataclasses.dataclass
class Round:
    """One round of a search, measured on validation data.

    Attributes:
        sparsity: fraction of the initial claim that is released after the round.
        after_prune: the metrics right after the release, by name.
        retrained: the metric that judges, after the last epoch of retraining.
        epochs: number of epochs of retraining.
        kept: whether `retrained` is good enough; None while the round lasts.
    """

    sparsity: float
    after_prune: dict[str, float]
    retrained: float = 0.0
    epochs: int = 0
    kept: bool | None = None


class Search(Phases, abc.ABC):
    """Base class for phases that prune and retrain in rounds, until one is not good enough.

    The task ends as the last round that was kept, or as after its training if none was.

    Args:
        model, common: as for `Phases`.
        auto: the settings of the search.
        epoch: the epoch whose start begins it.
        retrain_epochs: epochs of retraining, see the subclass.

    Attributes:
        rounds: the rounds so far.
        cumulative: whether a round begins from the one before it; if not, from the trained weights.

    Raises:
        ValueError: the metric that judges a round is not measured.
    """

    epoch: int
    cumulative = False

    def __init__(
        self,
        model: TaskModel,
        auto: Auto,
        epoch: int,
        retrain_epochs: int,
        **common: Unpack[PhaseOptions],
    ) -> None:
        super().__init__(model, **common)
        auto.check_monitor(list(as_numbers(model.get_metrics_result())))
        check_resettable(model.optimizer)
        self.auto, self.epoch, self.retrain_epochs = auto, epoch, retrain_epochs
        self.rounds: list[Round] = []
        # The values from which the next round begins, and those to end with if they are others.
        self._start: Sequence[np.ndarray] = ()
        self._best: Sequence[np.ndarray] = ()

    @abc.abstractmethod
    def sparsity_of(self, number: int) -> float | None:
        """Returns the fraction of the initial claim that a round releases; None: there is none.

        Args:
            number: of the round, from 0.
        """

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
            self.measure("before")
            self._start = checkpoint.take(self.model)
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
            values = checkpoint.take(self.model)
            if self.cumulative:
                self._start = values
            else:
                self._best = values
        self._next()

    def state(self) -> dict:
        rounds = [dataclasses.asdict(entry) for entry in self.rounds]
        return {**super().state(), "rounds": rounds}

    def arrays(self) -> list[np.ndarray]:
        return [*self._start, *self._best]

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        self.rounds = [Round(**entry) for entry in state["rounds"]]
        count = len(checkpoint.variables_of(self.model))
        self._start, self._best = arrays[:count], arrays[count:]
        self._set_end()

    def _next(self) -> None:
        sparsity = self._next_sparsity()
        if sparsity is not None:
            self._return_to(self._start)
            self.net.prune_to(sparsity, self.criterion)
            self.begin_retraining()
            self.measure("after")
            self.rounds.append(Round(sparsity, self.around_prune["after"]))
            return
        self._return_to(self._best or self._start)
        if self.model.current_phase == Phase.TRAINING:  # no round was kept
            self.net.prune(0.0)
        kept = [entry.after_prune for entry in self.rounds if entry.kept]
        self.around_prune["after"] = kept[-1] if kept else self.around_prune["before"]
        if self.epochs_after():
            self.begin_retraining()
        self._start = self._best = ()
        self._set_end()

    def _next_sparsity(self) -> float | None:
        failed = bool(self.rounds) and not self.rounds[-1].kept
        return None if failed else self.sparsity_of(len(self.rounds))

    def _set_end(self) -> None:
        if self.rounds and self.rounds[-1].kept is not None and self._next_sparsity() is None:
            rounds = sum(entry.epochs for entry in self.rounds)
            self.epochs = self.epoch + rounds + self.epochs_after()

    def _return_to(self, values: Sequence[np.ndarray]) -> None:
        checkpoint.put_back(self.model, values)
        self.accept_phase()
