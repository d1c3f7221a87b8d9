"""`Task` and `PendingTask`, the tasks that `PackTrainer` packs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras

from packnet_tf.backend.json_files import as_json
from packnet_tf.backend.types import AnyData
from packnet_tf.tasks.checks import as_results
from packnet_tf.tasks.overlays import check_share
from packnet_tf.training.class_weights import ClassWeight, check_class_weight
from packnet_tf.training.values import Rate, check_rates, check_whole

if TYPE_CHECKING:
    from packnet_tf.net import PackNet


@dataclasses.dataclass(frozen=True)
class Task:
    """A task for `PackTrainer.fit`: its name, its head and its data.

    Attributes:
        name: unique in the pack, and usable as a file name.
        head: the task's own output layers.
        train: training data. A `tf.data.Dataset` of batches (x, y) or (x, y, sample_weight), used
            once per epoch; a `keras.utils.PyDataset` of such batches, whose order is shuffled; a
            tuple of such arrays, which are shuffled and batched; or a function from the epoch,
            counted from 0, to a `tf.data.Dataset`.
        validation: the same, but no function, evaluated after every epoch; or None.
        test: the same, evaluated once after the commit; or None.
        classes: names of the classes in output order; saved with the task and exported.
        claim_ratio: fraction of the free weights to claim, see `PackNet.add_task`.
        statistics: source of the trunk's normalisation statistics, see `PackNet.add_task`.
        reuse: earlier tasks whose weights the task sees, see `PackNet.add_task`.
        reference: accuracies to compare the task with, `linear_head` and `chance`; they are saved
            with its results, see `PackNet.results`.
        rate_factors: factors for the trainer's learning rates, of the training and of the
            retraining.
        class_weight: weights of training examples by class, such as `{0: 1.0, 1: 2.5}`; other
            classes count 1. "balanced": all classes count alike; their examples are counted in one
            more pass over the training data. Weights of the data multiply them. For tasks with one
            output.
        metadata: facts to save with the task, JSON values by name; see `PackNet.metadata`.
        epochs, retrain_epochs, learning_rate, retrain_learning_rate: as for `PackTrainer`; None:
            those of the trainer.
        overlay: fraction of all packed weights that the task may override with values of its own,
            see `PackNet.add_task`; they are chosen once, also if the trainer has a pruning
            schedule. "auto": the smallest of 10, 5, 2 and 1 % whose validation
            accuracy is within a point of the best one, or within `max_drop` of
            `PackTrainer(prune=Auto(max_drop))`; each is retrained from the same weights. None: the
            task owns weights.

    Raises:
        ValueError: a number of epochs or a rate is invalid; `class_weight` is invalid, or has a
            class that `classes` lacks; `reference` has a value that is no number, or `metadata` one
            that is no JSON value; no pack can take the overlay.

    Example:
        >>> Task("clothing", keras.layers.Dense(10), (images, labels))
    """

    name: str
    head: keras.layers.Layer
    train: AnyData | Callable[[int], AnyData]
    validation: AnyData = None
    test: AnyData = None
    classes: Sequence[str] | None = None
    claim_ratio: float = 1.0
    statistics: str = "task"
    reuse: str | Sequence[str] = "all"
    reference: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rate_factors: tuple[float, float] = (1.0, 1.0)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_weight: ClassWeight = None
    epochs: int | None = None
    retrain_epochs: int | None = None
    learning_rate: Rate | None = None
    retrain_learning_rate: Rate | None = None
    overlay: float | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        count = None if self.classes is None else len(self.classes)
        check_class_weight(self.class_weight, count)
        # Refuse now what would be refused after the training, or after that of earlier tasks.
        for name in ("epochs", "retrain_epochs"):
            if getattr(self, name) is not None:
                check_whole(0, **{name: getattr(self, name)})
        for name in ("learning_rate", "retrain_learning_rate"):
            if getattr(self, name) is not None:
                check_rates(**{name: getattr(self, name)})
        if self.overlay is not None and self.overlay != "auto":
            check_share(self.name, self.overlay, self.claim_ratio)
        as_results(self.name, self.reference)
        as_json(self.metadata, f"Metadata of task '{self.name}'")


@dataclasses.dataclass(frozen=True)
class PendingTask:
    """A task that is created when its turn comes, after the earlier tasks are packed.

    Attributes:
        name: as for `Task`.
        prepare: function from the pack and a dict to the task. It may adopt a base, and draws
            random numbers before that: a resumed run has the base already. The dict keeps what took
            long to compute: if the run is interrupted and resumed, `prepare` gets the dict that it
            filled before.
        finish: function called with the pack and the task's history entry after the commit, before
            both are saved. It may pack the task again, and change the entry.
        retry: function called with the same, before `finish`. If it returns a dict, the commit is
            undone and the task is packed in another way: `prepare` gets this dict, and decides.
            It is also called if the training has diverged, with an entry that has `diverged`;
            without a dict, the error is raised.

    Example:
        >>> def prepare(net, memory):
        ...     head = packnet_tf.linear_head(net, (images, labels))
        ...     return packnet_tf.Task("birds", head, (images, labels))
        >>> tasks = [packnet_tf.PendingTask("birds", prepare)]
        >>> history = packnet_tf.PackTrainer(net, epochs=2, retrain_epochs=1).fit(tasks)
    """

    name: str
    prepare: Callable[["PackNet", dict], Task]
    finish: Callable[["PackNet", dict], None] | None = None
    retry: Callable[["PackNet", dict], dict | None] | None = None
