"""Orders the callbacks of `fit`: logs are completed first, and the commit comes last."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

# The `callbacks` argument of `fit`: a callback, a nested list of callbacks, or None.
Callbacks: TypeAlias = keras.callbacks.Callback | Sequence | None


class ReportShares(keras.callbacks.Callback):
    """Adds `claimed` and `sparsity` to the epoch logs, before other callbacks read them."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["claimed"], logs["sparsity"] = self.model.pack.state.claimed_share()


def in_working_order(callbacks: Callbacks) -> Callbacks:
    """Moves callbacks with `commits_task` to the end, after those that restore weights.

    It returns a `keras.callbacks.CallbackList` unchanged, because its order is the caller's.

    Args:
        callbacks: the argument of `fit`.
    """
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    flat = keras.tree.flatten(callbacks)
    committing = [callback for callback in flat if getattr(callback, "commits_task", False)]
    others = [callback for callback in flat if callback not in committing]
    return [ReportShares(), *others, *committing] if committing else flat
