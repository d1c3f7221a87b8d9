"""What commands say of tasks that came out badly."""

import packnet_tf


def warn(net: packnet_tf.PackNet) -> None:
    """Prints a line for everything that is wrong with a task of a pack."""
    for name in net.tasks:
        for sentence in packnet_tf.shortfalls(name, net.results(name)):
            print(f"WARNING: {sentence}")
