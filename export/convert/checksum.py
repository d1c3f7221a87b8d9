"""SHA-256 of a task's head and unpacked weights."""

import hashlib
import json

from packnet_tf.net import PackNet
from packnet_tf.packing.weight import values_of


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
    facts = json.loads(json.dumps(facts))  # tuples become lists, as in a pack read from a file
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for part in (record.values, record.overlaid, *shared):
        found.update(part)  # type: ignore[arg-type]  # arrays are buffers
    return found.hexdigest()
