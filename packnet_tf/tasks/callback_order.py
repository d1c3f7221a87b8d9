"""The order of the callbacks of `fit`: logs are complete for all, and the commit comes last."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

# What `fit` takes: one, several, also in lists within lists, or none.
Callbacks: TypeAlias = keras.callbacks.Callback | Sequence | None


class ReportShares(keras.callbacks.Callback):
    """Adds `claimed` and `sparsity` to the epoch logs, before other callbacks read them."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["claimed"], logs["sparsity"] = self.model.pack.state.claimed_share()


def in_working_order(callbacks: Callbacks) -> Callbacks:
    """Callbacks such that those with `commits_task` come after all that restore weights.

    A `keras.callbacks.CallbackList` is the caller's own order and stays as it is.

    Args:
        callbacks: what `fit` was given.
    """
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    flat = keras.tree.flatten(callbacks)
    committing = [callback for callback in flat if getattr(callback, "commits_task", False)]
    others = [callback for callback in flat if callback not in committing]
    return [ReportShares(), *others, *committing] if committing else flat
