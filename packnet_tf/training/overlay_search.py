"""Searches for the share of an overlay: the smallest that does about as well as larger ones."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from packnet_tf.training import checkpoint
from packnet_tf.training.rounds import Search

SHARES = (0.1, 0.05, 0.02, 0.01)  # of all packed weights
MAX_DROP = 0.01  # of validation accuracy, from the best share


def largest_share(overlay: float | Literal["auto"] | None) -> float | None:
    """Returns the overlay with which a task is added, before any search for its share.

    Args:
        overlay: see `packnet_tf.Task`.
    """
    return SHARES[0] if overlay == "auto" else overlay


class OverlaySearch(Search):
    """The phases of a task with an overlay whose share is searched for.

    All weights train until `epoch`. Each round begins from there, keeps a share of the weights,
    those that changed most, and retrains them; the shares become smaller. A round whose validation
    accuracy is more than `auto.max_drop` below the best one ends the search, and the one before it
    is kept.

    Args:
        model, epoch, common: as for `Search`; the task's overlay is `SHARES[0]`.
        auto: its `max_drop` and `monitor` count.
        retrain_epochs: epochs of retraining in each round, at least 1.
    """

    _best: Sequence[np.ndarray] = ()  # the values at the end of the last round that was kept

    def retraining_epoch(self, epoch: int) -> int | None:
        earlier = sum(entry.epochs for entry in self.rounds[:-1])
        return None if epoch < self.epoch else epoch - self.epoch - earlier

    def epoch_begins(self, epoch: int) -> None:
        if epoch == self.epoch and not self.rounds:
            self.begin()
            self._begin_round()

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        if not self.rounds or self.note_epoch(logs).epochs < self.retrain_epochs:
            return
        now, best = self.rounds[-1], max(entry.retrained for entry in self.rounds)
        now.kept = now.retrained >= best - self.auto.max_drop
        if not now.kept:
            self._good = list(self._best)
            self.go_back()
        elif len(self.rounds) < len(SHARES):
            self._best = checkpoint.take(self.model)
            self.go_back()
            self._begin_round()

    def arrays(self) -> list[np.ndarray]:
        return [*self._good, *self._best]

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        count = len(checkpoint.variables_of(self.model))
        self._good, self._best = arrays[:count], arrays[count:]
        self._set_end()

    def _begin_round(self) -> None:
        self.net.prune_to(1.0 - SHARES[len(self.rounds)], self.criterion)
        self.begin_round()
        self._set_end()

    def _set_end(self) -> None:
        """Lets the training last to the end of the round under way."""
        self.epochs = self.epoch + max(1, len(self.rounds)) * self.retrain_epochs
