"""The base of a pack: its pretrained trunk, kept for all tasks, and pruned a little for them."""

import packnet_tf

BASE = "base"  # its name where nobody gives one, and the note by which a new pack is to get one
BASE_IMAGES = 2000  # that it is repaired on; more take longer than they gain


def adopt(net: packnet_tf.PackNet, name: str, batches, ratio: float, epochs: int) -> None:
    """Makes the trunk of a new pack its base, and prints what that did.

    Args:
        net: a pack without tasks.
        name: of the base, as the first task.
        batches: dataset of (images, labels) to repair it on.
        ratio: share of its packed weights to release.
        epochs: of the repair.
    """
    ratios = packnet_tf.erk_ratios(net, ratio)
    print(f"Keeping the pretrained trunk as task {name} ...", flush=True)
    images = batches.map(lambda images, labels: images)
    print(net.adopt(name, ratios, images=images, epochs=epochs, verbose=0), flush=True)


def coming_base(net: packnet_tf.PackNet) -> str | None:
    """Name of the base that a pack without tasks is to get; else None."""
    return None if net.tasks else net.notes.get(BASE)


def default_restart(has_base: bool) -> str:
    """What freed weights restart from, see `PackNet`, where nobody has chosen it.

    The base is repaired to be whole without what it released. Weights that start from 0 beside it
    change nothing until they have learnt something, and what has learnt least is pruned.
    """
    return "zero" if has_base else "trunk"


def reused(net: packnet_tf.PackNet, reuse: str) -> str | list[str]:
    """What a setting means for the next task of a pack, as `PackNet.add_task` takes it.

    Args:
        net: the pack.
        reuse: "auto" is the base alone, where there is one, and else all earlier tasks; "all",
            "none", or names with commas between them.
    """
    if reuse == "auto":
        return [net.base] if net.base else "all"
    return reuse if reuse in ("all", "none") else reuse.split(",")


def optimizer_name(net: packnet_tf.PackNet, name: str) -> str:
    """The optimizer that a setting means: "auto" is "adam" beside an adopted trunk, else "sgd"."""
    if name != "auto":
        return name
    return "adam" if net.base or coming_base(net) else "sgd"
