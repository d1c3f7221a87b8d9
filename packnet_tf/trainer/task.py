"""A task to pack: its name, its head and its data."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras

from packnet_tf.backend.types import AnyData

if TYPE_CHECKING:
    from packnet_tf.net import PackNet


@dataclasses.dataclass(frozen=True)
class Task:
    """One of the tasks that `PackTrainer.fit` packs.

    Attributes:
        name: unique in the pack, and usable as a file name.
        head: the task's own output layers.
        train: its training data: a `tf.data.Dataset` of batches (x, y) or (x, y, sample_weight),
            gone through once an epoch; such a tuple of arrays, which is shuffled and batched; or
            a function from the number of an epoch, counted from 0, to a dataset.
        validation: a dataset or a tuple of arrays, looked at after every epoch; or None.
        test: the same, looked at once, when the task is committed; or None.
        classes: names of the classes in output order, kept with the task and exported.
        claim_ratio: fraction of the free weights to claim, see `PackNet.add_task`.
        statistics: what the trunk normalises by, see `PackNet.add_task`.
        reuse: which earlier tasks' weights it sees, see `PackNet.add_task`.
        reference: accuracies to hold the task against, `linear_head` and `chance`, kept with what
            is measured of it; see `PackNet.results`.
        rate_factors: what the trainer's two learning rates, of the training and of the
            retraining, are multiplied by.

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


@dataclasses.dataclass(frozen=True)
class PendingTask:
    """A task that is made when its turn comes, from the pack as the earlier tasks have left it.

    Attributes:
        name: as for `Task`.
        prepare: from the pack and a dict to the task. It may adopt a base. What it puts into the
            dict is in it again where an interrupted run goes on: what took long to find out.
        finish: called with the pack and the task's entry in the history once the task is
            committed, before both are kept; it may replace the task, and correct the entry.

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
