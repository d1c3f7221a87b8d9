"""SHA-256 of a task's head and unpacked weights."""

from collections.abc import Iterable

from packnet_tf.net import PackNet
from packnet_tf.packing.weight import values_of
from packnet_tf.tasks.integrity.digests import digest_of


def task_digest(net: PackNet, task: str) -> str:
    """Returns the SHA-256 of what a task has of its own, in hexadecimal.

    That is its head, its classes, its unpacked weights, its reuse and its overlay.

    Args:
        net: the pack.
        task: name of a committed task.
    """
    record = net.state.record(task)
    mine = set(record.own_places)
    shared = values_of(
        variable
        for place, variable in enumerate(net.state.unpacked_variables())
        if place not in mine
    )
    facts: list = [record.head.config, record.head_weights, record.own_places, record.classes]
    if record.sees != tuple(range(1, record.number + 1)):  # old digests lack it
        facts.append(record.sees)
    return digest_of(facts, (record.values, record.overlaid, *shared))


def foreign_tasks(net: PackNet, entries: Iterable[dict]) -> list[str]:
    """Returns the tasks of a manifest that are another pack's, or were released by this one.

    Args:
        net: the pack.
        entries: the `tasks` of the manifest.
    """
    return [
        entry["task"]
        for entry in entries
        if net.tasks[entry["number"] - 1 : entry["number"]] != (entry["task"],)
        or entry["own_sha256"] != task_digest(net, entry["task"])
    ]
