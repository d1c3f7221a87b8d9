"""A task's way from its first step to its commit: train, prune, retrain, commit.

The callback and the trainer both drive these classes, and these call the verbs of the pack: there
is one way of going through the phases.
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
    """The arguments that all `Phases` take."""

    retrain_learning_rate: float | None
    criterion: Criterion
    evaluate: Evaluate | None


class Phases:
    """What all ways have in common; a subclass says when and how much to prune.

    Args:
        model: the compiled model of the open task of a pack.
        retrain_learning_rate: learning rate from the prune on, its last step where it is gradual;
            default: unchanged.
        criterion: which weights go, see `PackNet.prune`.
        evaluate: measures the model on validation data; None: nothing is measured.

    Attributes:
        net, task: the pack, and the name of its open task.
        around_prune: what `evaluate` measured, "before" the prune and "after" it.
        epochs: how many epochs the task takes, where somebody has said so.
    """

    epochs: int | None = None
    epoch: int | None = None  # the one whose start begins the retraining

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
                f"The phases are those of a task of a pack; '{model.name}' belongs to no pack. Use "
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
        self.accept_phase()
        if retrain_learning_rate is not None:
            _check_rate(model.optimizer)

    def epoch_begins(self, epoch: int) -> None:
        """Does what is due before epoch `epoch`, counted from 0."""

    def epoch_ends(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Learns what the epoch brought.

        Args:
            epoch: its number, from 0.
            logs: what was measured in it, by name.
        """

    def retraining_epoch(self, epoch: int) -> int | None:
        """The number of an epoch within the retraining; None for one before that.

        Args:
            epoch: its number among all, from 0.
        """
        return None if self.epoch is None or epoch < self.epoch else epoch - self.epoch

    def steps_done(self, step: int) -> None:
        """Does what is due after `step` steps of the optimizer."""

    def steps_until_due(self, step: int, limit: int) -> int:
        """How many steps after `step` can be made in one go, at most `limit`."""
        return limit

    def unfinished(self) -> str | None:
        """Why the task cannot be committed yet; None if it can."""
        return None

    def finish(self) -> bool:
        """Commits the task; where it was not pruned as planned, leaves it open with a warning.

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
        """A fresh optimizer at the rate of the retraining."""
        reset_optimizer(self.model.optimizer)
        self.set_retrain_rate()

    def set_retrain_rate(self) -> None:
        """Puts the learning rate to that of the retraining, where there is one."""
        if self.retrain_learning_rate is not None:
            self.model.optimizer.learning_rate = self.retrain_learning_rate

    def state(self) -> dict:
        """What a run that goes on later must know besides the values of variables, as JSON."""
        return {"around_prune": self.around_prune}

    def arrays(self) -> list[np.ndarray]:
        """The same, of arrays."""
        return []

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        """Goes on from there; the variables have their values already.

        Args:
            state: what `state()` returned.
            arrays: what `arrays()` returned.
        """
        self.around_prune = state["around_prune"]
        self.accept_phase()

    def accept_phase(self) -> None:
        """Takes the phase of the task's weights for its own: what was restored is no rollback."""
        record = self.net.state.need_open("train")
        record = dataclasses.replace(record, phase=self.model.current_phase)
        self.net.state = self.net.state.with_open(record)

    def measure(self, moment: str) -> None:
        """Notes what validation data say of the model.

        Args:
            moment: "before" or "after" the prune.
        """
        if self.evaluate is None:
            return
        # The metrics are in the midst of an epoch of training, and go on from there.
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
        if epoch < self.epoch or self.model.current_phase != Phase.TRAINING:
            return
        self.measure("before")
        self.net.prune(self.ratio, self.criterion)
        self.measure("after")
        self.begin_retraining()

    def unfinished(self) -> str | None:
        if self.model.current_phase != Phase.TRAINING:
            return None
        return (
            f"Training of task '{self.model.task_name}' stopped before its prune at the start of "
            f"epoch {self.epoch}, so the task is left open and claims every free weight. Go on "
            "with fit(initial_epoch=...), or call net.prune(ratio), retrain, and net.commit(). "
            "With EarlyStopping write start_from_epoch=prune_epoch."
        )


class Gradual(Phases):
    """Prunes a little at a time, as a schedule of training steps says.

    Args:
        model, common: as for `Phases`.
        schedule: any `step -> (should_prune, sparsity)`; the sparsity is of what the task began
            with.
        epoch: the epoch whose start releases what is still missing and begins the retraining;
            None: the schedule alone decides, and the optimizer is never made fresh.
    """

    def __init__(
        self,
        model: TaskModel,
        schedule: Schedule,
        epoch: int | None = None,
        **common: Unpack[PhaseOptions],
    ) -> None:
        super().__init__(model, **common)
        # The trainer asks ahead, and again when the steps are done.
        self.schedule, self.epoch = functools.lru_cache(4096)(schedule), epoch
        self.final = final_sparsity(schedule)
        if epoch is not None:
            check_resettable(model.optimizer)
        self._asked: int | None = None  # the last step the schedule was asked for
        self._reached = -1.0

    def epoch_begins(self, epoch: int) -> None:
        if (
            self.model.current_phase == Phase.RETRAINING
        ):  # a resumed run, or one whose weights came back
            self._reached = max(self._reached, 0.0)
        if epoch == self.epoch:
            self._prune_to(self.final)
            self.begin_retraining()
        elif self.epoch is None or epoch < self.epoch:
            self.steps_done(self._step())

    def steps_done(self, step: int) -> None:
        if self._reached == self.final:
            return
        first = step if self._asked is None else self._asked + 1
        wanted = due(self.schedule, range(first, step + 1), self._reached >= 0, self.final)
        self._asked = step
        if wanted is not None:
            self._prune_to(wanted)

    def steps_until_due(self, step: int, limit: int) -> int:
        if self._reached == self.final:
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
        raise ValueError(
            "retrain_learning_rate cannot be set: the optimizer follows a learning-rate schedule, "
            "which starts again at the prune. Leave retrain_learning_rate out, or give the "
            "optimizer a number."
        ) from error
