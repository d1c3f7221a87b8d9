"""The base of a pack: its pretrained trunk, slightly pruned and kept for all tasks."""

from collections.abc import Callable

import keras

import packnet_tf
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.plan import BASE

BASE_IMAGES = 2000  # images to repair it on; more cost more time than they gain


def adopt(net: packnet_tf.PackNet, name: str, batches, ratio: float, epochs: int) -> None:
    """Makes the trunk of a new pack its base, and prints the result.

    Args:
        net: a pack without tasks.
        name: name of the base, which is the first task.
        batches: dataset of batches (images, labels) to repair it on.
        ratio: share of its packed weights to release, 0 to 1.
        epochs: epochs of the repair.
    """
    ratios = packnet_tf.erk_ratios(net, ratio)
    print(f"Keeping the pretrained trunk as task {name} ...", flush=True)
    images = batches.map(lambda images, labels: images)
    print(net.adopt(name, ratios, images=images, epochs=epochs, verbose=0), flush=True)


def coming_base(net: packnet_tf.PackNet) -> str | None:
    """Returns the name of the base that a pack without tasks is to get, or None."""
    return None if net.tasks else net.notes.get(BASE)


def default_restart(trained: bool, has_base: bool) -> str:
    """Returns the default of `restart`, see `PackNet`.

    A base is repaired to work without the weights that it released. Beside it, weights that start
    from 0 have no effect until they have learnt something, and those that learnt least are pruned.
    Beside tasks of a trunk with random weights, starting from random weights again would add noise
    to what those tasks learnt; see docs/measured/comparison.md.

    Args:
        trained: whether the trunk is trained, see `is_trained`.
        has_base: whether it becomes the base.
    """
    return "trunk" if trained and not has_base else "zero"


def reused(reuse: str) -> str | list[str]:
    """Converts the setting `reuse` to the argument of `PackNet.add_task`.

    Args:
        reuse: "all", "none", "auto", or names separated by commas.
    """
    return reuse if reuse in ("all", "none", "auto") else reuse.split(",")


def optimizer_name(net: packnet_tf.PackNet, name: str, owns: bool = True) -> str:
    """Resolves the setting `optimizer`.

    "auto" is "adam" beside an adopted trunk and for tasks with overlays, else "sgd".

    Args:
        net: the pack.
        name: the setting.
        owns: whether the task owns weights; False: it has an overlay.
    """
    if name != "auto":
        return name
    return "adam" if net.base or coming_base(net) or not owns else "sgd"


def optimizer_of_open(
    net: packnet_tf.PackNet, name: str, accumulation: int = 1
) -> Callable[[float], keras.optimizers.Optimizer]:
    """Returns a function from a learning rate to an optimizer for the task that is open by then.

    Args:
        net: the pack.
        name: the setting `optimizer`.
        accumulation: batches whose gradients make one update.
    """

    def new_optimizer(rate: float) -> keras.optimizers.Optimizer:
        found = optimizer_name(net, name, net.state.need_open("train").owns)
        return rates.optimizer(found, accumulation)(rate)

    return new_optimizer
