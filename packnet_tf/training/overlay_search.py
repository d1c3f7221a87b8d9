"""Searches for the share of an overlay: the smallest that does about as well as larger ones."""

from typing import Literal

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

    All weights train until `epoch`. Each round keeps a share of the weights, those that changed
    most, and retrains them; the shares become smaller. A round whose validation accuracy is more
    than `auto.max_drop` below the best one ends the search, and the one before it is kept.

    Args:
        model, epoch, common: as for `Search`; the task's overlay is `SHARES[0]`.
        auto: its `max_drop` and `monitor` count.
        retrain_epochs: epochs of retraining in each round, at least 1.
    """

    def sparsity_of(self, number: int) -> float | None:
        return 1.0 - SHARES[number] if number < len(SHARES) else None

    def verdict(self) -> bool | None:
        now, best = self.rounds[-1], max(entry.retrained for entry in self.rounds)
        if now.epochs < self.retrain_epochs:
            return None
        return now.retrained >= best - self.auto.max_drop
