"""What searches of how much to prune have in common: rounds that are kept or undone."""

import dataclasses
from collections.abc import Mapping
from typing import Unpack

import numpy as np

from packnet_tf.backend.optimizers import check_resettable
from packnet_tf.tasks.task_model import TaskModel
from packnet_tf.training import checkpoint
from packnet_tf.training.auto import Auto
from packnet_tf.training.phases import PhaseOptions, Phases


@dataclasses.dataclass
class Round:
    """One round of a search; accuracies are on validation data, 0 to 1.

    Attributes:
        sparsity: fraction of the initial claim that is released after the round.
        pruned: accuracy right after the release.
        retrained: accuracy after the last epoch of retraining.
        epochs: number of epochs of retraining.
        kept: whether the accuracy is good enough.
    """

    sparsity: float
    pruned: float
    retrained: float = 0.0
    epochs: int = 0
    kept: bool = False


class Search(Phases):
    """Base class for phases that prune and retrain in rounds, and compare each with the start.

    Args:
        model, common: as for `Phases`.
        auto: the settings of the search.
        epoch: the epoch whose start begins it.
        retrain_epochs: epochs of retraining, see the subclass.

    Attributes:
        rounds: the rounds so far.

    Raises:
        ValueError: the metric that judges a round is not measured.
    """

    epoch: int

    def __init__(
        self,
        model: TaskModel,
        auto: Auto,
        epoch: int,
        retrain_epochs: int,
        **common: Unpack[PhaseOptions],
    ) -> None:
        super().__init__(model, **common)
        auto.check_monitor(list(model.get_metrics_result()))
        check_resettable(model.optimizer)
        self.auto, self.epoch, self.retrain_epochs = auto, epoch, retrain_epochs
        self.rounds: list[Round] = []
        self._good: list[np.ndarray] = []  # the values to return to

    def state(self) -> dict:
        return {**super().state(), "rounds": [dataclasses.asdict(entry) for entry in self.rounds]}

    def arrays(self) -> list[np.ndarray]:
        return self._good

    def restore(self, state: dict, arrays: list[np.ndarray]) -> None:
        super().restore(state, arrays)
        self.rounds = [Round(**entry) for entry in state["rounds"]]
        self._good = arrays

    def begin(self) -> None:
        """Measures the model before its first round, and keeps its values."""
        self.measure("before")
        self.keep()

    def begin_round(self) -> None:
        """Begins to retrain what a release has left."""
        self.begin_retraining()
        self.measure("after")
        sparsity = self.net.state.claimed_share()[1]
        self.rounds.append(Round(sparsity, self.around_prune["after"][self.auto.monitor]))

    def note_epoch(self, logs: Mapping[str, float]) -> Round:
        """Notes an epoch of retraining in the last round, and returns the round.

        Args:
            logs: the epoch's metrics by name.
        """
        now = self.rounds[-1]
        now.epochs, now.retrained = now.epochs + 1, logs[f"val_{self.auto.monitor}"]
        return now

    def keep(self) -> None:
        """Keeps the model's values, to return to."""
        self._good = checkpoint.take(self.model)

    def go_back(self) -> None:
        """Returns to the kept values."""
        checkpoint.put_back(self.model, self._good)
        self.accept_phase()
