"""What commands say of tasks that came out badly."""

import packnet_tf


def of_pack(net: packnet_tf.PackNet) -> list[str]:
    """A sentence for everything that is wrong with a task of a pack."""
    return [s for name in net.tasks for s in packnet_tf.shortfalls(name, net.results(name))]


def warn(net: packnet_tf.PackNet) -> None:
    """Prints them."""
    for sentence in of_pack(net):
        print(f"WARNING: {sentence}")
