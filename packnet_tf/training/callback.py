"""`PackNetCallback`: packs a task during `model.fit`."""

import numbers
import warnings
from typing import TYPE_CHECKING, Any

import keras

from packnet_tf.backend.optimizers import steps_of
from packnet_tf.backend.types import AnyData
from packnet_tf.packing.pruning import check_ratio, magnitude
from packnet_tf.packing.weight import Criterion
from packnet_tf.planning import usual_prune_epoch
from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.training.phases import Gradual, OneShot, PhaseOptions, Phases
from packnet_tf.training.schedules import Schedule
from packnet_tf.training.values import check_functions

if TYPE_CHECKING:
    from packnet_tf.net import PackNet

Logs = dict[str, Any] | None


class PackNetCallback(keras.callbacks.Callback):
    """Packs the open task in one `fit`: trains, prunes, retrains, commits.

    Epochs 0 to `prune_epoch - 1` train. At the start of epoch `prune_epoch`, the callback releases
    the smallest weights of the claim and resets the optimizer. The remaining epochs retrain. At
    the end of `fit`, the callback commits the task. It adds `claimed` (the fraction of all packed
    weights that the task claims) and `sparsity` (the fraction of the initial claim that is
    released) to the epoch logs.

    The position among the callbacks does not matter: the commit follows all other callbacks. Use
    `keras.callbacks.BackupAndRestore` to resume an interrupted run. With `EarlyStopping(
    restore_best_weights=True)`, set `start_from_epoch=prune_epoch`: weights from before the prune
    claim everything, and the commit refuses them.

    With a `schedule`, the callback prunes gradually, up to exactly the schedule's final sparsity.
    Released weights stay released. The schedule should end some epochs before `fit` does.

    Args:
        prune_ratio: fraction of the claim to release, 0 to 1; 0 for the last task keeps all. A task
            with an overlay releases at least all but the overlay's share.
        prune_epoch: 0-based epoch whose start prunes; default: two thirds of the epochs of `fit`,
            so that a fit of 30 prunes at the start of epoch 20. 0 prunes before any training, which
            makes a pretrained network the first task.
        schedule: instead of both, any function `step -> (should_prune, sparsity)`, where the
            sparsity is the fraction of the initial claim that is released:
            `packnet_tf.polynomial_decay`, or your own function.
        criterion: selects the weights to release; see `PackNet.prune`.
        retrain_learning_rate: learning rate from the prune on (from its last step, if there is a
            schedule); default: unchanged.
        validation_data: a dataset, (x, y) or (x, y, sample_weight), as for `fit`. If given, the
            task is evaluated before and after the prune, see `around_prune`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> model.fit(train, epochs=30, validation_data=validation,
        ...           callbacks=[packnet_tf.PackNetCallback(prune_ratio=0.75, prune_epoch=20)])

    Source: Mallya & Lazebnik 2018, section 3.
    """

    commits_task = True  # `fit` moves such callbacks to the end, see `callback_order.py`
    _phases: Phases | None = None

    def __init__(
        self,
        prune_ratio: float = 0.5,
        prune_epoch: int | None = None,
        *,
        schedule: Schedule | None = None,
        criterion: Criterion = magnitude,
        retrain_learning_rate: float | None = None,
        validation_data: AnyData = None,
    ) -> None:
        super().__init__()
        if schedule is not None and (prune_ratio, prune_epoch) != (0.5, None):
            raise ValueError(
                "PackNetCallback takes a schedule, or prune_ratio and prune_epoch, not both: a "
                "schedule decides when and how much to prune. Write PackNetCallback(schedule="
                "packnet_tf.polynomial_decay(0.0, 0.75, begin_step=0, end_step=1000))."
            )
        check_functions(criterion=criterion)
        self.prune_ratio = check_ratio(prune_ratio)
        whole = isinstance(prune_epoch, numbers.Integral) and not isinstance(prune_epoch, bool)
        if prune_epoch is not None and (not whole or prune_epoch < 0):
            raise ValueError(
                f"prune_epoch is the 0-based epoch whose start prunes; got {prune_epoch!r}. Write "
                "prune_epoch=20 to train epochs 0 to 19 before the prune, or leave it out to prune "
                "after two thirds of the epochs."
            )
        self.prune_epoch = None if prune_epoch is None else int(prune_epoch)
        self.schedule = schedule
        self.criterion = criterion
        self.retrain_learning_rate = retrain_learning_rate
        self.validation_data = validation_data

    @property
    def around_prune(self) -> dict[str, dict[str, float]]:
        """Results of `evaluate`, by "before" and "after" the prune; empty until then."""
        return self._phases.around_prune if self._phases else {}

    def on_train_begin(self, logs: Logs = None) -> None:
        _pack_of(self.model)
        common: PhaseOptions = {
            "criterion": self.criterion,
            "retrain_learning_rate": self.retrain_learning_rate,
            "evaluate": None if self.validation_data is None else self._evaluate,
        }
        if self.schedule is not None:
            self._phases = Gradual(self.model, self.schedule, **common)
            return
        epochs = (self.params or {}).get("epochs")
        prune_epoch = self._prune_epoch(epochs)
        self._phases = OneShot(self.model, self.prune_ratio, prune_epoch, **common)
        if self.prune_epoch is None and prune_epoch == 0 and self.prune_ratio:
            warnings.warn(
                f"This fit has one epoch, so task '{self.model.task_name}' is pruned before it has "
                "trained. Use more epochs, or write prune_epoch=0 if the network is trained.",
                stacklevel=2,
            )
        if epochs is not None and epochs <= prune_epoch:
            warnings.warn(
                f"This fit ends after epoch {epochs - 1}, before the prune of task "
                f"'{self.model.task_name}' at the start of epoch {prune_epoch}: the task will "
                "be left open. Use more epochs or a smaller prune_epoch, or go on with another fit("
                f"initial_epoch={epochs}).",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._begun().epoch_begins(epoch)
        # Reading the optimizer's counter after every step would wait for the step, so count here.
        self._first_step = steps_of(self.model.optimizer)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.schedule is None:
            return
        if hasattr(self.model, "jax_state_sync"):  # on JAX, an epoch's values are not in variables
            self.model.jax_state_sync()
        self._begun().steps_done(self._first_step + batch + 1)

    def on_train_end(self, logs: Logs = None) -> None:
        self._begun().finish()

    def _prune_epoch(self, epochs: int | None) -> int:
        if self.prune_epoch is not None:
            return self.prune_epoch
        if epochs is None:
            raise ValueError(
                "This PackNetCallback has no prune_epoch, and nothing says how many epochs there "
                "are. Write PackNetCallback(prune_ratio=0.75, prune_epoch=20) to prune at the "
                "start of epoch 20, or call its set_params({'epochs': 30}) to prune after two "
                "thirds of 30."
            )
        return usual_prune_epoch(epochs)

    def _begun(self) -> Phases:
        if self._phases is None:
            raise RuntimeError(
                "This PackNetCallback has not been started. Pass it to model.fit(callbacks=[...]), "
                "or, in a loop of your own, call its on_train_begin first."
            )
        return self._phases

    def _evaluate(self) -> dict[str, float]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self.validation_data)
        return self.model.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True)


def _pack_of(model: keras.Model) -> "PackNet":
    """Returns the `PackNet` of a task model."""
    if not isinstance(model, TaskModel) or model.pack is None:
        raise ValueError(
            f"PackNetCallback works on the model that net.add_task returns; got '{model.name}', "
            "which belongs to no pack. Put augmentation into the data or the trunk rather than "
            "around the model. A task model loaded from a file belongs to no pack either: "
            "open the pack with packnet_tf.load and use net.open_model."
        )
    return model.pack
