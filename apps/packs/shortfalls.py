"""Warnings about tasks with bad results."""

import packnet_tf


def warn(net: packnet_tf.PackNet) -> None:
    """Prints the problems of a pack's tasks."""
    for name in net.tasks:
        for sentence in packnet_tf.shortfalls(name, net.results(name)):
            print(f"WARNING: {sentence}")
