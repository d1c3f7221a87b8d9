"""The phases of a task: train, prune, retrain, commit.

The callback and the trainer both drive these classes, which call the verbs of the pack. The rules
for the order of the phases are therefore in one place.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypedDict, Unpack

import keras
import numpy as np
from keras import ops

from packnet_tf.backend.optimizers import check_resettable, reset_optimizer, steps_of
from packnet_tf.packing.pruning import magnitude
from packnet_tf.packing.weight import Criterion, assign_values, values_of
from packnet_tf.tasks.checks import check_not_rolled_back, rolled_back
from packnet_tf.tasks.task_model import Phase, TaskModel
from packnet_tf.training.schedules import Schedule, due, final_sparsity

if TYPE_CHECKING:
    from packnet_tf.net import PackNet

Evaluate = Callable[[], Mapping[str, float]]


class PhaseOptions(TypedDict, total=False):
    """The keyword arguments common to all `Phases`."""

    retrain_learning_rate: float | None
    criterion: Criterion
    evaluate: Evaluate | None


class Phases:
    """Base class for the phases of a task; a subclass decides when and how much to prune.

    Args:
        model: the compiled model of a pack's open task.
        retrain_learning_rate: learning rate from the prune on (from its last step, if pruning is
            gradual); None: unchanged.
        criterion: selects the weights to release, see `PackNet.prune`.
        evaluate: measures the model on validation data; None: no measurement.

    Attributes:
        net, task: the pack, and the name of its open task.
        around_prune: results of `evaluate`, by "before" and "after" the prune.
        epochs: number of epochs that the task takes, if known.
    """

    epochs: int | None = None
    epoch: int | None = None  # the epoch whose start begins the retraining

    def __init__(
        self,
        model: TaskModel,
        *,
        retrain_learning_rate: float | None = None,
        criterion: Criterion = magnitude,
        evaluate: Evaluate | None = None,
    ) -> None:
        if model.pack is None or model.task_name is None:
            raise ValueError(
                f"Phases need the model of a pack's task; '{model.name}' belongs to no pack. Use "
                "the model that net.add_task returns."
            )
        if not model.open:
            raise RuntimeError(
                f"Cannot train task '{model.task_name}': this model is not that of the open task. "
                "Use net.open_model."
            )
        self.model = model
        self.net: PackNet = model.pack
        self.task: str = model.task_name
        self.retrain_learning_rate = retrain_learning_rate
        self.criterion = criterion
        self.evaluate = evaluate
        self.around_prune: dict[str, dict[str, float]] = {}
        if model.current_phase > self.net.state.need_open("train").phase:
            self.accept_phase()  # a checkpoint of another process has a task that is pruned
        if retrain_learning_rate is not None:
            _check_rate(model.optimizer)

    def epoch_begins(self, epoch: int) -> None:
        """Prunes if that is due at the start of an epoch, counted from 0."""

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Processes the results of an epoch.

        Args:
            epoch: the epoch, counted from 0.
            logs: the epoch's metrics by name.
        """

    def retraining_epoch(self, epoch: int) -> int | None:
        """Returns an epoch's index within the retraining; None if it comes before.

        Args:
            epoch: the epoch, counted from 0 at the start of training.
        """
        return None if self.epoch is None or epoch < self.epoch else epoch - self.epoch

    def steps_done(self, step: int) -> None:
        """Prunes if that is due after `step` optimizer steps."""

    def steps_until_due(self, step: int, limit: int) -> int:
        """Returns how many steps may follow `step` before a prune is due, at most `limit`."""
        return limit

    def unfinished(self) -> str | None:
        """Returns the reason why the task cannot be committed yet; None if it can."""
        return None

    def finish(self) -> bool:
        """Commits the task. If it was not pruned as planned, warns and leaves it open.

        Returns:
            Whether the task was committed.

        Raises:
            RuntimeError: weights from before the prune have been restored.
        """
        check_not_rolled_back(self.net.state.need_open("commit"), self.model)
        reason = self.unfinished()
        if reason is not None:
            warnings.warn(reason, stacklevel=3)
            return False
        self.net.commit()
        return True

    def begin_retraining(self) -> None:
        """Resets the optimizer and sets the learning rate of the retraining."""
        reset_optimizer(self.model.optimizer)
        self.set_retrain_rate()

    def set_retrain_rate(self) -> None:
        """Sets the learning rate of the retraining, if there is one."""
        if self.retrain_learning_rate is not None:
            self.model.optimizer.learning_rate = self.retrain_learning_rate

    def resume_rate(self) -> None:
        """Sets the learning rate of the retraining if the model was compiled anew within it."""
        if steps_of(self.model.optimizer) == 0:
            self.set_retrain_rate()

    def state(self) -> dict:
        """Returns, as JSON values, what a resumed run needs besides the model's variables."""
        return {"around_prune": self.around_prune}

    def arrays(self) -> list[np.ndarray]:
        """Returns the arrays that a resumed run needs besides the model's variables."""
        return []

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        """Restores the phases of an interrupted run; the model's variables are restored already.

        Args:
            state: what `state()` returned.
            arrays: what `arrays()` returned.
        """
        self.around_prune = state["around_prune"]
        self.accept_phase()

    def accept_phase(self) -> None:
        """Adopts the phase of the model's weights, so that restored weights are no rollback."""
        record = self.net.state.need_open("train")
        record = dataclasses.replace(record, phase=self.model.current_phase, claims=None)
        self.net.state = self.net.state.with_last(record)

    def measure(self, moment: str) -> None:
        """Evaluates the model and records the results in `around_prune`.

        Args:
            moment: "before" or "after" the prune.
        """
        if self.evaluate is None:
            return
        # An epoch of training is under way, and its metrics must not be lost.
        states = [variable for metric in self.model.metrics for variable in metric.variables]
        kept = values_of(states)
        self.around_prune[moment] = dict(self.evaluate())
        assign_values(states, kept)


class OneShot(Phases):
    """Prunes once, at the start of an epoch, as in the paper (section 3).

    Args:
        model, common: as for `Phases`.
        ratio: fraction of the claim to release, 0 to 1.
        epoch: the epoch, counted from 0, whose start prunes and begins the retraining.
    """

    epoch: int

    def __init__(
        self, model: TaskModel, ratio: float, epoch: int, **common: Unpack[PhaseOptions]
    ) -> None:
        super().__init__(model, **common)
        self.ratio, self.epoch = ratio, epoch
        check_resettable(model.optimizer)

    def epoch_begins(self, epoch: int) -> None:
        if epoch < self.epoch:
            return
        pruned = self.model.current_phase != Phase.TRAINING
        if pruned and self.net.state.missing_to(self.ratio) == 0:
            self.resume_rate()
            return
        self.measure("before")
        if pruned:  # by hand, or by a callback of a smaller ratio
            self.net.prune_to(self.ratio, self.criterion)
        else:
            self.net.prune(self.ratio, self.criterion)
        self.begin_retraining()
        self.measure("after")

    def unfinished(self) -> str | None:
        if self.model.current_phase != Phase.TRAINING:
            return None
        return (
            f"Training of task '{self.model.task_name}' stopped before its prune at the start of "
            f"epoch {self.epoch}, so the task is left open with all that it claims. Go on "
            "with fit(initial_epoch=...), or call net.prune(ratio), retrain, and net.commit(). "
            "With EarlyStopping write start_from_epoch=prune_epoch."
        )


class Gradual(Phases):
    """Prunes in several steps, following a schedule.

    Args:
        model, common: as for `Phases`.
        schedule: any function `step -> (should_prune, sparsity)`; the sparsity is the fraction of
            the initial claim that is released.
        epoch: the epoch whose start completes the pruning and begins the retraining. None: the
            schedule alone decides, and the optimizer is never reset.
    """

    def __init__(
        self,
        model: TaskModel,
        schedule: Schedule,
        epoch: int | None = None,
        **common: Unpack[PhaseOptions],
    ) -> None:
        super().__init__(model, **common)
        # The trainer looks ahead, and `steps_done` asks again for the same steps.
        self.schedule, self.epoch = functools.lru_cache(4096)(schedule), epoch
        self.final = final_sparsity(schedule)
        if epoch is not None:
            check_resettable(model.optimizer)
        self._asked: int | None = None  # the last step for which the schedule was called
        self._reached = -1.0

    def epoch_begins(self, epoch: int) -> None:
        if (
            self.model.current_phase == Phase.RETRAINING
        ):  # a resumed run, or one whose weights came back
            self._reached = max(self._reached, 0.0)
            if self.net.state.missing_to(self.final) == 0:
                self.resume_rate()
        if epoch == self.epoch:
            self._prune_to(self.final)
            self.begin_retraining()
        elif self.epoch is None or epoch < self.epoch:
            self.steps_done(self._step())

    def steps_done(self, step: int) -> None:
        if self._reached == self.final > 0:
            return
        first = step if self._asked is None else self._asked + 1
        wanted = due(self.schedule, range(first, step + 1), self._reached >= 0, self.final)
        self._asked = step
        if wanted is not None:
            self._prune_to(wanted)

    def steps_until_due(self, step: int, limit: int) -> int:
        if self._reached == self.final > 0:
            return limit
        for ahead in range(1, limit):
            if due(self.schedule, [step + ahead], self._reached >= 0, self.final) is not None:
                return ahead
        return limit

    def unfinished(self) -> str | None:
        missing = self.net.state.missing_to(self.final)
        if self.model.current_phase != Phase.TRAINING and missing == 0:
            return None
        step = self._step()
        if self._reached >= 0 and due(self.schedule, [step], True, self.final) == self.final:
            raise rolled_back(self.task)
        return (
            f"Training of task '{self.model.task_name}' stopped at step {step}, before the pruning "
            f"schedule reached its sparsity of {self.final:g}, so the task is left open. Go on "
            "with fit(initial_epoch=...), give a schedule that ends earlier, or call "
            f"net.prune_to({self.final:g}), retrain, and net.commit()."
        )

    def _prune_to(self, sparsity: float) -> None:
        if "before" not in self.around_prune:
            self.measure("before")
        self.net.prune_to(sparsity, self.criterion)
        self.final = max(sparsity, self.final)
        if sparsity == self.final and "after" not in self.around_prune:
            self.measure("after")
        if sparsity == self.final and self.epoch is None:
            self.set_retrain_rate()
        self._reached = max(sparsity, self._reached)

    def _step(self) -> int:
        return steps_of(self.model.optimizer)


def _check_rate(optimizer: keras.optimizers.Optimizer) -> None:
    try:
        optimizer.learning_rate = float(ops.convert_to_numpy(optimizer.learning_rate))
    except (TypeError, AttributeError) as error:
        if isinstance(optimizer, keras.optimizers.MultiOptimizer):
            raise ValueError(
                "retrain_learning_rate cannot be set: a MultiOptimizer has several rates. Leave "
                "retrain_learning_rate out, or compile with one optimizer."
            ) from error
        raise ValueError(
            "retrain_learning_rate cannot be set: the optimizer follows a learning-rate schedule, "
            "which starts again at the prune. Leave retrain_learning_rate out, or give the "
            "optimizer a number."
        ) from error
