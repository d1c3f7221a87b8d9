"""Searches for a prune ratio: the largest that keeps validation accuracy."""

from collections.abc import Sequence

from packnet_tf.training.rounds import Round, Search


def middle(ratios: Sequence[float], rounds: Sequence[Round]) -> float | None:
    """Returns the ratio to try next, by bisection; None if the largest one to keep is known.

    Args:
        ratios: the ratios to choose from, ascending.
        rounds: those that were tried, each of them kept or not.

    Example:
        >>> middle([0.5, 0.7, 0.8, 0.9, 0.95], [Round(0.8, {}, kept=True)])
        0.95
    """
    largest = max([entry.ratio for entry in rounds if entry.kept], default=0.0)
    too_large = min([entry.ratio for entry in rounds if not entry.kept], default=1.0)
    between = [ratio for ratio in ratios if largest < ratio < too_large]
    return between[len(between) // 2] if between else None


class RatioSearch(Search):
    """The phases of a task whose prune ratio is searched for, by short trials.

    A trial is kept as soon as its validation accuracy is at most `auto.max_drop` below that before
    the prune, and given up after `auto.trial_epochs`. After the last one, the task is retrained
    with the largest ratio that was kept; with none, nothing is released.

    Args:
        model, auto, epoch, common: as for `Search`.
        retrain_epochs: epochs of retraining at the ratio that was found.
    """

    def retraining_epoch(self, epoch: int) -> int | None:
        found = super().retraining_epoch(epoch)
        # A trial has the rate of the first epoch: `retrain_epochs` may be fewer than its own.
        return 0 if found and self.rounds and self.rounds[-1].kept is None else found

    def next_ratio(self) -> float | None:
        return middle(self.auto.ratios, self.rounds)

    def verdict(self) -> bool | None:
        now, before = self.rounds[-1], self.around_prune["before"][self.auto.monitor]
        if now.retrained >= before - self.auto.max_drop:
            return True
        return None if now.epochs < self.auto.trial_epochs else False

    def epochs_after(self) -> int:
        return self.retrain_epochs
