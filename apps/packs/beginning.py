"""What a task of images begins with: its head, and the statistics that it normalises by.

A trunk that has learnt something gives a linear head that has converged before training begins. And
beside a base there is a choice. By the trunk's own statistics a task starts exactly as the frozen
trunk, which suits photographs like those it was trained on; by the statistics of the task's batches
it can move further, which suits other images. No figure was found that tells beforehand, so both
are tried for some steps, and validation images choose.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np

from packnet_tf.apps.images.heads import calibrated_head
from packnet_tf.apps.images.trunks import is_trained
from packnet_tf.backend.distribution import scope_of, strategy_of
from packnet_tf.normalization.statistics import moves_statistics, update_statistics
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.training.heads import collect, fitted_head, linear_accuracy, next_features

STATISTICS_STEPS = 16  # that statistics are measured on after a trial
TRIAL_STEPS = 100  # of a trial; in fewer, batches' statistics have not caught up yet
# Without the batches' statistics, which hold back steps that are too large.
TRUNK_RATE = 1 / 3


@dataclasses.dataclass(frozen=True)
class Images:
    """Datasets of batches (images, labels) of one task.

    Attributes:
        fitting: training images, not augmented, in an order that mixes the classes.
        training: the same as training sees them.
        validation: validation images, mixed too.
        classes: how many there are.
    """

    fitting: object
    training: object
    validation: object
    classes: int


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What a task begins with.

    Attributes:
        head: built, or to be built.
        statistics: see `PackNet.add_task`.
        reference: accuracies on validation images: `chance`, and of a linear head on the frozen
            trunk `linear_head`, where it is trained.
        kept_head: that of a linear head on what the task sees, which is what can be packed instead;
            0 where the pack has no base.
    """

    head: keras.layers.Layer
    statistics: str
    reference: dict[str, float]
    kept_head: float = 0.0

    @property
    def rate_factor(self) -> float:
        """What to multiply learning rates by."""
        return TRUNK_RATE if self.statistics == "trunk" else 1.0


def begin(
    net, name: str, images: Images, new_optimizer: Callable, rate: float, factor: float,
    reuse: str | Sequence[str] = "all", statistics: str | None = None,
) -> Beginning:  # fmt: skip
    """The beginning of the next task of a pack, which is left as it was.

    Args:
        net: the pack.
        name: of the task, for the screen.
        images: its data.
        new_optimizer: makes an optimizer of a learning rate.
        rate: of the training.
        factor: see `heads.calibrated_head`.
        reuse: see `PackNet.add_task`.
        statistics: what was chosen before, in a run that was interrupted.
    """
    labels = np.concatenate([labels.numpy() for _, labels in images.validation])
    reference = {"chance": float(np.bincount(labels).max() / len(labels))}
    if not net.tasks and not is_trained(net.state.trunk):
        features_of = next_features(net, reuse=reuse)
        head = calibrated_head(features_of, images.fitting, images.classes, factor)
        return Beginning(head, "task", reference)
    moves = net.policy.norms == "per_task" and moves_statistics(net.state.trunk)
    if net.base is None or not moves:
        head, reference["linear_head"] = _fitted(net, images, "task", reuse)
        return Beginning(head, "task", reference)
    heads = {}
    heads["trunk"], kept = _fitted(net, images, "trunk", reuse)
    reference["linear_head"] = kept
    if seen_numbers(reuse, net.tasks) != seen_numbers([net.base], net.tasks):
        # Earlier tasks may have made worse what this one sees: the base alone is the floor.
        reference["linear_head"] = max(kept, _fitted(net, images, "trunk", [net.base])[1])
    heads["task"], _ = _fitted(net, images, "task", reuse)
    print(
        f"{name}: a linear head on the frozen trunk gets {reference['linear_head']:.1%} of "
        "validation images",
        flush=True,
    )
    if statistics is None:
        tried = {}
        with scope_of(strategy_of(net)):
            for kind, head in heads.items():
                begun = Beginning(head, kind, reference)
                tried[kind] = _try(net, name, begun, images, new_optimizer, rate, reuse)
        statistics = max(tried, key=tried.get)  # of equals the trunk's
        print(
            f"{name}: {TRIAL_STEPS} steps by the trunk's statistics get {tried['trunk']:.1%}, by "
            f"those of batches {tried['task']:.1%}: going on with the {_NAMES[statistics]}",
            flush=True,
        )
    return Beginning(heads[statistics], statistics, reference, kept)


_NAMES = {"trunk": "trunk's", "task": "batches'"}


def keep_linear_head(
    net, name: str, images: Images, classes: list[str], reuse: str | Sequence[str] = "all"
) -> float:
    """Packs a task anew as a linear head on what the pack has; it takes no weights.

    Args:
        net: the pack; the task is its last one.
        name: of the task.
        images: its data.
        classes: their names.
        reuse: see `PackNet.add_task`.

    Returns:
        Its accuracy on validation images.
    """
    net.release(name)
    head, found = _fitted(net, images, "trunk", reuse, free=False)
    net.add_task(name, head, classes, 0.0, "trunk", reuse)
    net.commit()
    return found


def _fitted(net, images: Images, *given, **more) -> tuple[keras.Model, float]:
    """A converged head on `next_features(net, ...)`, and its accuracy on validation images."""
    features_of = next_features(net, *given, **more)
    head = fitted_head(*collect(features_of, images.fitting), images.classes)
    return head, linear_accuracy(head, *collect(features_of, images.validation))


def _try(
    net, name: str, begun: Beginning, images: Images, new_optimizer, rate: float, reuse
) -> float:
    """Accuracy on validation images after some steps of training."""
    model = net.add_task(name, begun.head, statistics=begun.statistics, reuse=reuse)
    try:
        return trial(model, new_optimizer(rate * begun.rate_factor), images)
    finally:
        net.discard()


def trial(model: keras.Model, optimizer: keras.optimizers.Optimizer, images: Images) -> float:
    """Accuracy of any model on validation images after `TRIAL_STEPS` of training."""
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    optimizer.build(model.trainable_variables)  # within a trace it takes as long again
    data = images.training.repeat()
    keras.Model.fit(model, data.take(TRIAL_STEPS), verbose=0, shuffle=False)
    update_statistics(model, data.take(STATISTICS_STEPS))
    return model.evaluate(images.validation, verbose=0, return_dict=True)["accuracy"]
