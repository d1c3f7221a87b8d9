"""Searches for the share of an overlay: the smallest that does about as well as all weights."""

from collections.abc import Mapping
from typing import Unpack

import numpy as np

from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.trainer.auto import Auto
from packnet_tf.trainer.search import Search
from packnet_tf.training.phases import PhaseOptions

SHARES = (0.01, 0.02, 0.05, 0.1)  # of all packed weights
MAX_DROP = 0.01  # of validation accuracy, from that of training all weights


class OverlaySearch(Search):
    """The phases of a task with an overlay whose share is searched for.

    All weights train until `epoch`. Each round begins from there, keeps the share of the weights
    that changed most, and retrains them. The first share whose validation accuracy is within
    `auto.max_drop` of that of all weights ends the search; the last one is kept in any case.

    Args:
        model, epoch, common: as for `Search`; the task's overlay is `SHARES[-1]`.
        auto: its `max_drop` and `monitor` count.
        retrain_epochs: epochs of retraining in each round, at least 1.
    """

    def __init__(
        self,
        model: TaskModel,
        auto: Auto,
        epoch: int,
        retrain_epochs: int,
        **common: Unpack[PhaseOptions],
    ) -> None:
        super().__init__(model, auto, epoch, retrain_epochs, **common)
        if retrain_epochs == 0:
            raise ValueError(
                'overlay="auto" judges an overlay after its retraining, and there is none. Write '
                "PackTrainer(retrain_epochs=5), or a number, overlay=0.05."
            )
        self._set_end()

    def retraining_epoch(self, epoch: int) -> int | None:
        earlier = sum(entry.epochs for entry in self.rounds[:-1])
        return None if epoch < self.epoch else epoch - self.epoch - earlier

    def epoch_begins(self, epoch: int) -> None:
        if epoch == self.epoch and not self.rounds:
            self.begin()
            self._begin_round()

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        if not self.rounds:
            return
        now = self.note_epoch(logs)
        if now.epochs == self.retrain_epochs and not now.kept and len(self.rounds) < len(SHARES):
            self.go_back()
            self._begin_round()

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        self._set_end()

    def _begin_round(self) -> None:
        self.net.prune_to(1.0 - SHARES[len(self.rounds)], self.criterion)
        self.begin_round()
        self._set_end()

    def _set_end(self) -> None:
        self.epochs = self.epoch + max(1, len(self.rounds)) * self.retrain_epochs
