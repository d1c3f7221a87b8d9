"""Warnings about tasks with bad results."""

import packnet_tf


def of_pack(net: packnet_tf.PackNet) -> list[str]:
    """Returns a sentence for every problem of a task of a pack."""
    return [s for name in net.tasks for s in packnet_tf.shortfalls(name, net.results(name))]


def warn(net: packnet_tf.PackNet) -> None:
    """Prints the problems of a pack's tasks."""
    for sentence in of_pack(net):
        print(f"WARNING: {sentence}")
