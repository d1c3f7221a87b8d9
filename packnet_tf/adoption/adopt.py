"""Adopts a pretrained trunk as the first task, without the data it was trained on.

Pruning damages the trunk. The repair needs no labels: on any images, the pruned trunk learns to
reproduce the unpruned one, layer by layer. The repair changes the kept weights, which then no
longer match the restart values of the free weights: the next task would start from a trunk worse
than the pruned one. Therefore the restart values are trained in the same way afterwards.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

import keras

from packnet_tf.adoption.matching import match
from packnet_tf.backend.datasets import check_ends
from packnet_tf.backend.text import listed
from packnet_tf.backend.types import AnyData
from packnet_tf.packing import cloning
from packnet_tf.packing.policy import own_weights
from packnet_tf.packing.pruning import check_ratios
from packnet_tf.packing.weight import Criterion, assign_values, clear, values_of
from packnet_tf.reporting.tables import AsTable, Table
from packnet_tf.tasks.transaction import Transaction

if TYPE_CHECKING:
    from packnet_tf.net import PackNet


class Fitting(TypedDict):
    """The arguments of `match` that the user sets."""

    epochs: int
    learning_rate: float | None
    verbose: int | str


@dataclasses.dataclass(frozen=True)
class Adoption(AsTable):
    """The result of adopting a trunk; prints as a table.

    Attributes:
        name: the task's name.
        released: fraction of the packed weights that the prune released, 0 to 1.
        epochs: epochs of repair; 0 if there was no repair or it was undone.
        error_pruned: relative error of the features on the images after the prune: the mean
            squared difference from the unpruned trunk's features, divided by their variance. None
            without images.
        error_repaired: the relative error after the repair; None without images.
        error_next: the relative error of the trunk from which the next task starts, kept and free
            weights together. None if restart is not "trunk", or without images.
    """

    name: str
    released: float
    epochs: int
    error_pruned: float | None
    error_repaired: float | None
    error_next: float | None = None

    def _table(self) -> Table:
        def show(error: float | None) -> str:
            return "not measured" if error is None else f"{error:.4g}"

        rows = [
            ["released", f"{self.released:.1%}"],
            ["feature error after the prune", show(self.error_pruned)],
            ["epochs of repair", str(self.epochs)],
            ["feature error after the repair", show(self.error_repaired)],
            ["feature error the next task starts from", show(self.error_next)],
        ]
        return Table([f"task {self.name}, adopted", ""], rows)


def adopt(
    net: "PackNet",
    name: str,
    prune_ratio: float | Mapping[str, float],
    head: keras.layers.Layer | None,
    images: AnyData,
    epochs: int,
    learning_rate: float | None,
    classes: Sequence[str] | Mapping | None,
    criterion: Criterion,
    verbose: str | int,
) -> Adoption:
    """Does the work of `PackNet.adopt`.

    Args:
        net: the pack.
        name, prune_ratio, head, images, epochs, learning_rate, classes, criterion, verbose: as
            for `PackNet.adopt`.
    """
    net.state.check_name(name)
    check_first(name, net.tasks)
    prune_ratio = check_ratios(prune_ratio, net.state.weights)
    check_settings(epochs, learning_rate)
    check_ends(images, "The images to adopt on")
    given = keras.layers.Identity(name="features") if head is None else head
    fitting: Fitting = {"epochs": epochs, "learning_rate": learning_rate, "verbose": verbose}
    before: float | None = None
    after: float | None = None
    following: float | None = None
    repaired = True
    with Transaction(net):
        model = net.add_task(name, given, classes)
        check_has_values(name, given, model.head)
        teacher = None if images is None else cloning.plain_trunk(net.state.trunk, model.trunk)
        released = sum(net.prune(prune_ratio, criterion).values())
        if teacher is not None:
            pruned = values_of(model.trunk.trainable_variables)
            before, after = match(model.trunk, teacher, images, **fitting)
            if learning_rate is not None:
                check_repaired(name, before, after, learning_rate)
            elif not after <= before:  # also true for NaN
                assign_values(model.trunk.trainable_variables, pruned)
                after, repaired = before, False
        net.commit()
        net.state = net.state.with_committed(name, adopted=True)
        if teacher is not None and net.policy.restart == "trunk":
            following = complete(net, teacher, images, **fitting)
    share = released / net.capacity().sum()["total"]
    return Adoption(name, share, epochs if before and repaired else 0, before, after, following)


def complete(
    net: "PackNet", teacher: keras.Model, images: AnyData, **fitting: Unpack[Fitting]
) -> float:
    """Trains the restart values of free weights, so that the next task starts from a whole trunk.

    If training does not reduce the error, the restart values stay: after a small repair they fit
    already.

    Args:
        net: a pack of one task.
        teacher: the original trunk.
        images, fitting: as for `match`.

    Returns:
        The relative error of the features from which the next task starts.
    """
    view = cloning.view_trunk(net.state.trunk, (1, 2), frozen=False)
    for _, variable in own_weights(view):
        variable.trainable = False
    for weight in net.state.weights.values():
        weight.open((1, 2))
    try:
        before, after = match(view, teacher, images, **fitting)
        better = after < before
        for weight in net.state.weights.values() if better else ():
            weight.restart(weight.trained[0].value)
    finally:
        for weight in net.state.weights.values():
            clear(weight.trained[1])
    return after if better else before


def check_first(name: str, tasks: Sequence[str]) -> None:
    """Refuses to adopt a trunk if the pack has tasks.

    Args:
        name: the name of the task to adopt.
        tasks: names of the pack's tasks.

    Raises:
        RuntimeError: there are tasks.
    """
    if tasks:
        raise RuntimeError(
            f"Cannot adopt task '{name}': a pretrained trunk is adopted as the first task, and the "
            f"pack has {listed(tasks)}. Make a new pack, net = packnet_tf.PackNet("
            f"trunk), call net.adopt('{name}', prune_ratio), then add the others."
        )


def check_settings(epochs: int, learning_rate: float | None) -> None:
    """Refuses invalid epochs and learning rates.

    Args:
        epochs, learning_rate: the user's values.

    Raises:
        ValueError: the message says which is invalid.
    """
    whole = isinstance(epochs, numbers.Integral) and not isinstance(epochs, bool)
    if not whole or epochs < 0:
        raise ValueError(
            f"epochs is how often the repair goes over the images, a whole number; got {epochs!r}. "
            "Write epochs=5, or epochs=0 to measure the damage and not repair it."
        )
    if learning_rate is None:
        return
    rate = float(learning_rate) if isinstance(learning_rate, numbers.Real) else math.nan
    if not 0 < rate < math.inf:
        raise ValueError(
            f"learning_rate is that of the repair's first epoch, a number above 0; got "
            f"{learning_rate!r}. Write learning_rate=0.0003."
        )


def check_has_values(name: str, head: keras.layers.Layer, own: keras.layers.Layer) -> None:
    """Refuses a head that would have random weights, because adopting does not train the head.

    Args:
        name: the task's name.
        head: the user's head.
        own: the head's copy in the task's model.

    Raises:
        ValueError: the head has weights and is not built.
    """
    if own.weights and not head.built:
        raise ValueError(
            f"Cannot adopt task '{name}': its head is not built, so its weights would be random, "
            "and adopting trains no head. Give the head that the trunk was trained with, or leave "
            "it out: the task then answers with the trunk's features."
        )


def check_repaired(name: str, before: float, after: float, learning_rate: float) -> None:
    """Refuses a repair that increased the error or made it NaN.

    Args:
        name: the task's name.
        before, after: relative errors of the features before and after the repair.
        learning_rate: the user's learning rate.

    Raises:
        ValueError: the repair made the features worse.
    """
    if not after <= before:
        raise ValueError(
            f"Cannot adopt task '{name}': the repair made the features worse, from a relative "
            f"error of {before:.4g} to {after:.4g}. Give a learning_rate below {learning_rate:g}, "
            "or leave the images out to prune without repair."
        )
