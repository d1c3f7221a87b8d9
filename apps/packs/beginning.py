"""Chooses the initial head of an image task, and the statistics that it normalises by.

On a trained trunk, the head is a linear one that is trained to convergence beforehand. Beside a
base there are two choices of statistics. With the trunk's statistics, a task starts exactly as the
frozen trunk, which suits images like those it was trained on. With the statistics of the task's own
batches, it can move further, which suits other images. We found no measure that predicts the better
one, so both are tried for some steps and compared on validation images.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from packnet_tf.adoption.trained import is_trained
from packnet_tf.apps.images.heads import calibrated_head
from packnet_tf.backend.distribution import scope_of, strategy_of
from packnet_tf.net import PackNet
from packnet_tf.normalization.following import moves_statistics
from packnet_tf.normalization.statistics import update_statistics
from packnet_tf.training.heads import collect, fitted_head, linear_accuracy, next_features

STATISTICS_STEPS = 16  # batches to measure statistics on after a trial
TRIAL_STEPS = 100  # with fewer, a task with batch statistics has not caught up yet
# The factor on the learning rate with the trunk's statistics: batch statistics, which dampen steps
# that are too large, are missing then.
TRUNK_RATE = 1 / 3
TRUNK_RATE_OF_ALL = 1 / 5  # if all weights train


@dataclasses.dataclass(frozen=True)
class Images:
    """Datasets of batches (images, labels) of one task.

    Attributes:
        fitting: training images, shuffled, not augmented.
        training: training images, shuffled and augmented.
        validation: validation images, shuffled.
        classes: number of classes.
        training_steps: number of steps of the whole training.
        class_weight: see `packnet_tf.Task`.
    """

    fitting: object
    training: object
    validation: object
    classes: int
    training_steps: int
    class_weight: str | None = None

    @property
    def trial_steps(self) -> int:
        """The steps of a trial: `TRIAL_STEPS`, but no more than the training that it stands for."""
        return min(TRIAL_STEPS, self.training_steps)


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The initial head and statistics of a task.

    Attributes:
        head: the head, built or not.
        statistics: see `PackNet.add_task`.
        reference: accuracies on validation images: `chance` and, on a trained trunk,
            `linear_head`, a linear head on the frozen trunk.
        kept_head: accuracy of a linear head on the frozen weights that the task sees, which can be
            packed instead; 0 if the pack has no base.
        trunk_rate: the factor on the learning rates with the trunk's statistics.
    """

    head: keras.layers.Layer
    statistics: str
    reference: dict[str, float]
    kept_head: float = 0.0
    trunk_rate: float = TRUNK_RATE

    @property
    def rate_factor(self) -> float:
        """The factor on the learning rates."""
        return self.trunk_rate if self.statistics == "trunk" else 1.0


def begin(
    net: PackNet,
    name: str,
    images: Images,
    new_optimizer: Callable,
    *,
    rate: float,
    factor: float,
    reuse: str | Sequence[str] = "all",
    statistics: str | None = None,
    overlay: float | None = None,
) -> Beginning:
    """Chooses the initial head and statistics of a pack's next task; the pack does not change.

    Args:
        net: the pack.
        name: name of the task, for messages.
        images: its data.
        new_optimizer: function from a learning rate to an optimizer, called with the task open.
        rate: learning rate of the training.
        factor: see `heads.calibrated_head`.
        reuse, overlay: see `PackNet.add_task`.
        statistics: the choice that an interrupted run made; default: choose now.
    """
    free, trunk_rate = overlay is None, TRUNK_RATE if overlay is None else TRUNK_RATE_OF_ALL
    labels = np.concatenate([labels.numpy() for _, labels in images.validation])
    reference = {"chance": float(np.bincount(labels).max() / len(labels))}
    if not net.tasks and not is_trained(net.state.trunk):
        features_of = next_features(net, reuse=reuse)
        head = calibrated_head(features_of, images.fitting, images.classes, factor)
        return Beginning(head, "task", reference)
    moves = net.policy.norms == "per_task" and moves_statistics(net.state.trunk)
    if net.base is None or not moves:
        head, reached = linear_head_of(net, images, "task", reuse, free)
        reference["linear_head"], kept = reached, 0.0
        if net.base is not None:
            kept = linear_head_of(net, images, "trunk", reuse, free=False)[1] if free else reached
        return Beginning(head, "task", reference, kept)
    heads = {}
    heads["trunk"], kept = linear_head_of(net, images, "trunk", reuse, free)
    reference["linear_head"] = kept
    if net.state.seen_by_next(reuse) != net.state.seen_by_next([net.base]):
        # Weights of earlier tasks may have made the features worse, so try the base alone as well.
        reference["linear_head"] = max(kept, linear_head_of(net, images, "trunk", [net.base])[1])
    heads["task"], _ = linear_head_of(net, images, "task", reuse, free)
    print(
        f"{name}: a linear head on the frozen trunk gets {reference['linear_head']:.1%} of "
        "validation images",
        flush=True,
    )
    if statistics is None and kept == 1.0:  # nothing can be better than where the trunk's begin
        statistics = "trunk"
    if statistics is None:
        tried = {}
        with scope_of(strategy_of(net)):
            for kind, head in heads.items():
                begun = Beginning(head, kind, reference, trunk_rate=trunk_rate)
                tried[kind] = _try(net, name, begun, images, new_optimizer, rate, reuse, overlay)
        statistics = max(tried, key=tried.get)  # a tie goes to the trunk's
        print(
            f"{name}: {images.trial_steps} steps by the trunk's statistics get "
            f"{tried['trunk']:.1%}, by those of batches {tried['task']:.1%}: going on with the "
            f"{_NAMES[statistics]}",
            flush=True,
        )
    return Beginning(heads[statistics], statistics, reference, kept, trunk_rate)


_NAMES = {"trunk": "trunk's", "task": "batches'"}


def linear_head_of(net, images: Images, *given, **more) -> tuple[keras.Model, float]:
    """Returns a converged head on `next_features(net, ...)`, and its validation accuracy.

    Args:
        net: the pack.
        images: the task's data.
        given, more: further arguments of `next_features`.
    """
    features_of = next_features(net, *given, **more)
    head = fitted_head(collect(features_of, images.fitting), images.classes, images.class_weight)
    return head, linear_accuracy(head, collect(features_of, images.validation))


def _try(
    net, name: str, begun: Beginning, images: Images, new_optimizer, rate: float, reuse, overlay
) -> float:
    """Returns the validation accuracy of a task after the steps of a trial."""
    model = net.add_task(
        name, begun.head, statistics=begun.statistics, reuse=reuse, overlay=overlay
    )
    try:
        return trial(model, new_optimizer(rate * begun.rate_factor), images)
    finally:
        net.discard()


def trial(model: keras.Model, optimizer: keras.optimizers.Optimizer, images: Images) -> float:
    """Returns the validation accuracy of a model after the steps of a trial."""
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    optimizer.build(model.trainable_variables)  # built within a trace, it would double its time
    data = images.training.repeat()
    keras.Model.fit(model, data.take(images.trial_steps), verbose=0, shuffle=False)
    update_statistics(model, data.take(STATISTICS_STEPS))
    return model.evaluate(images.validation, verbose=0, return_dict=True)["accuracy"]
