"""Searches for a prune ratio: releases and retrains in rounds until accuracy drops too far."""

from packnet_tf.training.rounds import Search

LEAST_LEFT = 0.01  # of the initial claim, after any round but the first


class RatioSearch(Search):
    """The phases of a task whose prune ratio is searched for.

    Each round releases `auto.step` of what is left. It is kept as soon as validation accuracy is at
    most `auto.max_drop` below that before the first prune, and undone after `auto.patience` epochs.
    That ends the search, and the task is retrained as it was before.

    Args:
        model, auto, epoch, common: as for `Search`.
        retrain_epochs: epochs of retraining at the ratio that was found.
    """

    cumulative = True

    def retraining_epoch(self, epoch: int) -> int | None:
        found = super().retraining_epoch(epoch)
        # A round has the rate of the first epoch: `retrain_epochs` may be fewer than its own.
        return 0 if found and self.rounds and self.rounds[-1].kept is None else found

    def sparsity_of(self, number: int) -> float | None:
        left = (1.0 - self.auto.step) ** (number + 1)
        return 1.0 - left if left >= LEAST_LEFT or not number else None

    def verdict(self) -> bool | None:
        now, before = self.rounds[-1], self.around_prune["before"][self.auto.monitor]
        if now.retrained >= before - self.auto.max_drop:
            return True
        return None if now.epochs < self.auto.patience else False

    def epochs_after(self) -> int:
        return self.retrain_epochs
