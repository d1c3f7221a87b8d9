"""Searches for a prune ratio: releases and retrains in rounds until accuracy drops too far."""

from collections.abc import Mapping

import numpy as np

from packnet_tf.tasks.task_model import Phase
from packnet_tf.training.rounds import Search


class RatioSearch(Search):
    """The phases of a task whose prune ratio is searched for.

    Args:
        model, auto, epoch, common: as for `Search`.
        retrain_epochs: epochs of retraining at the ratio that was found.
    """

    _found_at: int | None = None  # the epoch at which retraining begins

    def retraining_epoch(self, epoch: int) -> int | None:
        if epoch < self.epoch:
            return None
        return 0 if self._found_at is None else epoch - self._found_at

    def epoch_begins(self, epoch: int) -> None:
        if epoch < self.epoch or self._found_at is not None:
            return
        if not self.rounds:
            self.begin()
        if not self.rounds or self.rounds[-1].kept:
            self._release(epoch)

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        if not self.rounds or self._found_at is not None:
            return
        now = self.note_epoch(logs)
        if now.retrained >= self.around_prune["before"][self.auto.monitor] - self.auto.max_drop:
            now.kept = True
            self.keep()
        elif now.epochs >= self.auto.patience:
            self._return_to_best(epoch + 1)

    def state(self) -> dict:
        return {**super().state(), "found_at": self._found_at}

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        if state["found_at"] is not None:
            self._found(state["found_at"])

    def _release(self, epoch: int) -> None:
        released = self.net.prune(self.auto.step, self.criterion)
        if not any(released.values()):  # `step` of so small a claim rounds to 0
            self._return_to_best(epoch)
            return
        self.begin_round()

    def _return_to_best(self, epoch: int) -> None:
        """Restores the last good state and begins the final retraining."""
        self.go_back()
        if self.model.current_phase == Phase.TRAINING:  # nothing could be released
            self.net.prune(0.0)
        self.begin_retraining()
        self._found(epoch)
        self._good = []

    def _found(self, epoch: int) -> None:
        """Ends the search: retraining begins at `epoch`, which sets the number of epochs."""
        self._found_at, self.epochs = epoch, epoch + self.retrain_epochs
