"""PackNet through `model.fit`: train, prune, retrain, commit."""

import numbers
import warnings

import keras

from packnet_tf.optimizers import reset_optimizer
from packnet_tf.pruning import check_ratio
from packnet_tf.task_model import TRAINING, TaskModel


class PackNetCallback(keras.callbacks.Callback):
    """Packs the open task in one `fit`: trains, prunes, retrains, commits.

    Epochs 0 to `prune_epoch - 1` train; at the start of epoch `prune_epoch` the smallest weights
    of the claim are released and the optimizer starts afresh; the remaining epochs retrain, and
    at the end the task is committed. The epoch logs get `claimed` (share of all packed weights
    the task claims) and `sparsity` (share of what it began with that is released).

    Where it stands among the callbacks does not matter: the commit comes after the others are
    done. Restart an interrupted run with `keras.callbacks.BackupAndRestore`; with `EarlyStopping(
    restore_best_weights=True)` write `start_from_epoch=prune_epoch`, since better weights from
    before the prune claim everything and are refused.

    Args:
        prune_ratio: fraction of the claim to release, 0 to 1; 0 for the last task keeps all.
        prune_epoch: 0-based epoch whose start prunes; 0 prunes before any training, which makes a
            pretrained network task 1.
        retrain_learning_rate: learning rate from the prune on; default: unchanged.
        validation_data: as for `fit`, a dataset, (x, y) or (x, y, sample_weight); if given,
            the task is evaluated before and after the prune, see `around_prune`.

    Attributes:
        around_prune: dict with "before" and "after", each a dict of `evaluate`'s results; empty
            until the prune, or without `validation_data`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> model.fit(train, epochs=30, validation_data=val,
        ...           callbacks=[packnet_tf.PackNetCallback(prune_ratio=0.75, prune_epoch=20)])

    Source: Mallya & Lazebnik 2018, section 3.
    """

    def __init__(
        self,
        prune_ratio: float = 0.5,
        prune_epoch: int = 0,
        *,
        retrain_learning_rate: float | None = None,
        validation_data=None,
    ):
        super().__init__()
        self.prune_ratio = check_ratio(prune_ratio)
        whole = isinstance(prune_epoch, numbers.Integral) and not isinstance(prune_epoch, bool)
        if not whole or prune_epoch < 0:
            raise ValueError(
                f"prune_epoch is the 0-based epoch whose start prunes; got {prune_epoch!r}. Write "
                "prune_epoch=20 to train epochs 0 to 19 before the prune."
            )
        self.prune_epoch = int(prune_epoch)
        self.retrain_learning_rate = retrain_learning_rate
        self.validation_data = validation_data
        self.around_prune: dict[str, dict[str, float]] = {}

    def on_train_begin(self, logs=None):
        self._net = _pack_of(self.model)
        self._net.note_phase()
        self._check_rate()
        epochs = (self.params or {}).get("epochs")
        if epochs is not None and epochs <= self.prune_epoch:
            warnings.warn(
                f"This fit ends after epoch {epochs - 1}, before the prune of task "
                f"'{self.model.name}' at the start of epoch {self.prune_epoch}: the task will be "
                "left open. Use more epochs or a smaller prune_epoch, or go on with another fit("
                f"initial_epoch={epochs}).",
                stacklevel=2,
            )

    def _check_rate(self) -> None:
        if self.retrain_learning_rate is None:
            return
        try:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate)
        except TypeError as error:
            raise ValueError(
                "retrain_learning_rate cannot be set: the optimizer follows a learning-rate "
                "schedule, which starts again at the prune. Leave retrain_learning_rate out, or "
                "give the optimizer a number."
            ) from error

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= self.prune_epoch and self.model.current_phase == TRAINING:
            self._prune()

    def _prune(self) -> None:
        self._evaluate("before")
        self._net.prune(self.prune_ratio)
        self._evaluate("after")
        reset_optimizer(self.model.optimizer)
        if self.retrain_learning_rate is not None:
            self.model.optimizer.learning_rate = self.retrain_learning_rate

    def _evaluate(self, moment: str) -> None:
        if self.validation_data is None:
            return
        data = self.validation_data
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.around_prune[moment] = self.model.evaluate(
            x, y, sample_weight=sample_weight, verbose=0, return_dict=True
        )
        self.model.reset_metrics()  # or this epoch's training metrics would begin with these

    def on_train_end(self, logs=None):
        self._net.check_pruned()
        if self.model.current_phase == TRAINING:
            warnings.warn(
                f"Training of task '{self.model.name}' stopped before its prune at the start of "
                f"epoch {self.prune_epoch}, so the task is left open and claims every free weight. "
                "Go on with fit(initial_epoch=...), or call net.prune(ratio), retrain, and "
                "net.commit(). With EarlyStopping write start_from_epoch=prune_epoch.",
                stacklevel=2,
            )
            return
        self._net.commit()


class ReportShares(keras.callbacks.Callback):
    """Adds `claimed` and `sparsity` to the epoch logs, before other callbacks read them."""

    def on_train_begin(self, logs=None):
        self._net = _pack_of(self.model)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["claimed"], logs["sparsity"] = self._net.claimed_share()


def in_working_order(callbacks):
    """Callbacks such that logs are complete for all, and commits come after all restoring.

    A `keras.callbacks.CallbackList` is the caller's own order and stays as it is.
    """
    if callbacks is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    flat = keras.tree.flatten(callbacks)
    packing = [callback for callback in flat if isinstance(callback, PackNetCallback)]
    others = [callback for callback in flat if not isinstance(callback, PackNetCallback)]
    return [ReportShares(), *others, *packing] if packing else flat


def _pack_of(model):
    """The `PackNet` whose open task a model trains."""
    if not isinstance(model, TaskModel) or model.pack is None:
        raise ValueError(
            f"PackNetCallback works on the model that net.add_task returns; got '{model.name}', "
            "which belongs to no pack. Put augmentation into the data or the trunk rather than "
            "around the model. A saved task model is on its own too: open the pack with "
            "packnet_tf.load and use net.open_model."
        )
    return model.pack
