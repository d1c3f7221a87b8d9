"""How a pack stands: its tasks, their accuracies, its capacity and its storage."""

import dataclasses
import pathlib

import packnet_tf
from packnet_tf.apps.help import WIDTH
from packnet_tf.net import PackNet
from packnet_tf.reporting.tables import Table, count_bytes

MOMENTS = ("linear_head", "before_prune", "after_prune", "retrained", "test")
SHORT = ("linear_head", "before_prune", "retrained", "test")  # as many as fit a terminal
BAR = 60  # characters of the printed bar
MARKS = "123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ROUNDING = 0.01  # of a task: ratios are rounded to whole weights in every layer
NEXT_TO_NOTHING = 0.005  # share of free weights with which another task is not worth trying


def standing(net: PackNet, path: pathlib.Path) -> dict:
    """Returns all facts of a pack as a dict for JSON; shares and accuracies are 0 to 1.

    Args:
        net: the pack.
        path: its file.
    """
    whole, storage = net.capacity().sum(), net.storage()
    if net.base is not None:  # which is no task of the user's
        storage["separate_networks"] -= storage["packed"] + storage["trunk"]
    overlaid = whole.get("overlaid", {})
    tasks = [
        {
            "task": name,
            "number": number,
            "classes": net.classes(name),
            "sees": list(net.reused(name)),
            "results": net.results(name),
            "shortfalls": packnet_tf.shortfalls(name, net.results(name)),
            "metadata": net.metadata(name),
            "owns": whole["owned"][name] / whole["total"],
            "overrides": overlaid[name] / whole["total"] if name in overlaid else None,
            "bytes": storage["tasks"][name],
        }
        for number, name in enumerate(net.tasks, start=1)
    ]
    return {
        "pack": str(path),
        "bytes": path.stat().st_size,
        "base": net.base,
        "policy": dataclasses.asdict(net.policy),
        "notes": net.notes,
        "tasks": tasks,
        "open": net.open_model.task_name if net.open_model else None,
        "shortfalls": [text for task in tasks for text in task["shortfalls"]],
        "capacity": net.capacity().to_dict(),
        "storage": storage,
    }


def sentence(facts: dict) -> str:
    """Says how a pack stands: its size, its room, and whether tasks fall short.

    Args:
        facts: what `standing` returns.

    Example:
        >>> sentence({"pack": "a.keras", "tasks": []})
        'a.keras holds no task yet: all of its packed weights are free.'
    """
    name, tasks = pathlib.Path(facts["pack"]).name, _without_base(facts)
    if not facts["tasks"]:
        return f"{name} holds no task yet: all of its packed weights are free."
    one, values = facts["storage"]["one_network"], value_bytes(facts)
    said = f"{name} holds {counted_tasks(len(facts['tasks']), facts['base'])} in "
    said += f"{values / one:.2f} times the bytes of one network"
    if len(tasks) > 1:
        separate = facts["storage"]["separate_networks"]
        said += f" ({len(tasks)} separate networks take {separate / one:.2f} times)"
    said += f". {_room(facts)}"
    short = [task["task"] for task in tasks if task["shortfalls"]]
    if short:
        verb = "falls" if len(short) == 1 else "fall"
        said += f" {_counted(len(short), 'task')} {verb} short: {', '.join(short)}."
    elif any("retrained" in task["results"] for task in tasks):
        said += " No task falls short."
    return said


def value_bytes(facts: dict) -> int:
    """Returns the bytes of a pack's stored values; files add the configuration of the layers.

    Args:
        facts: what `standing` returns.
    """
    storage = facts["storage"]
    shared = storage["packed"] + storage["owners"] + storage["trunk"]
    return shared + sum(storage["tasks"].values())


def _without_base(facts: dict) -> list[dict]:
    return [task for task in facts["tasks"] if task["task"] != facts["base"]]


def _room(facts: dict) -> str:
    whole, last = facts["capacity"]["sum"], facts["tasks"][-1]
    free = whole["free"] / whole["total"]
    said = f"{free:.1%} of its packed weights are free"
    if free < NEXT_TO_NOTHING:
        return f"{said}: the pack is full."
    if last["task"] == facts["base"] or not last["owns"]:
        return f"{said}."
    more = int(free / last["owns"] + ROUNDING)
    if more == 0:
        return f"{said}, less than '{last['task']}' owns."
    room = _counted(more, "more task")
    return f"{said}, enough for {room} with as many weights as '{last['task']}'."


def policy_line(facts: dict) -> str:
    """Says how the pack was made: its policy, and the pixel values that its trunk takes.

    Args:
        facts: what `standing` returns.
    """
    policy = facts["policy"]
    said = (
        f"Biases {policy['biases']}, norms {policy['norms']}, embeddings {policy['embeddings']}; "
    )
    said += f"freed weights restart from {policy['restart']}"
    if policy["stem"] is not None:
        said += f"; the layers up to {policy['stem']} are shared"
    pixels = facts["notes"].get("pixel_range")
    return f"{said}; pixel values {pixels.replace(',', ' to ')}." if pixels else f"{said}."


def counted_tasks(count: int, base: str | None) -> str:
    """Says how many tasks a pack holds, of which the base is none of the user's.

    Args:
        count: number of its tasks, the base included.
        base: name of the base, or None.

    Example:
        >>> counted_tasks(3, "base")
        '2 tasks beside its base'
    """
    return (
        _counted(count, "task")
        if base is None
        else f"{_counted(count - 1, 'task')} beside its base"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shares(facts: dict) -> dict[str, float]:
    """Returns the share of the packed weights that each task owns, and `free`, 0 to 1.

    Args:
        facts: what `standing` returns.
    """
    whole = facts["capacity"]["sum"]
    counts = {**whole["owned"], "free": whole["free"]}
    return {name: count / whole["total"] for name, count in counts.items()}


def capacity_bar(facts: dict) -> str:
    """Lays out the capacity as one stacked bar: a mark per task, dots for free weights; and a key.

    Args:
        facts: what `standing` returns.
    """
    found = shares(facts)
    marks = [MARKS[number % len(MARKS)] for number in range(len(found) - 1)] + ["."]
    ends, total = [], 0.0
    for share in found.values():
        total += share
        ends.append(round(BAR * total))
    starts = [0, *ends[:-1]]
    bar = "".join(
        mark * (end - start) for mark, start, end in zip(marks, starts, ends, strict=True)
    )
    named = zip(marks, found.items(), strict=True)
    entries = [f"{mark} {name} {share:.1%}" for mark, (name, share) in named]
    lines = [" " + entries[0]]
    for entry in entries[1:]:
        if len(lines[-1]) + 2 + len(entry) <= WIDTH:
            lines[-1] += f"  {entry}"
        else:
            lines.append(f" {entry}")
    return "\n".join([f"[{bar}]", *lines])


def tasks_table(facts: dict, full: bool = False) -> Table:
    """Returns a row per task: classes, accuracies, share of packed weights, bytes, date.

    Args:
        facts: what `standing` returns.
        full: whether to add the number of training images and the accuracy after the prune.
    """
    moments = MOMENTS if full else SHORT
    head = ["", "task", "classes", *["training images"] * full]
    head += [*(moment.replace("_", " ") for moment in moments), "owns", "of its own", "packed on"]
    rows = []
    for task in facts["tasks"]:
        name, results = task["task"], task["results"]
        rows.append(
            [
                str(task["number"]),
                f"{name} (adopted)" if name == facts["base"] else name,
                str(len(task["classes"])) if task["classes"] else "-",
                *[_training_images(task["metadata"])] * full,
                *(f"{results[moment]:.1%}" if moment in results else "-" for moment in moments),
                _share(task),
                count_bytes(task["bytes"]),
                str(task["metadata"].get("committed", "-"))[:10],  # the day
            ]
        )
    return Table(head, rows)


def _share(task: dict) -> str:
    """Returns the share of the packed weights that a task owns, or with a plus sign overrides."""
    overrides = task.get("overrides")
    return f"{task['owns']:.1%}" if overrides is None else f"+{overrides:.1%}"


def _training_images(metadata: dict) -> str:
    images = metadata.get("images")
    count = images.get("train") if isinstance(images, dict) else None
    return f"{count:,}" if isinstance(count, int) else "-"  # in Python one may note anything


def storage_table(facts: dict) -> Table:
    """Returns the bytes of the pack's parts, of one network, and of one per task.

    Args:
        facts: what `standing` returns.
    """
    storage = facts["storage"]
    sizes = {
        "packed weights, shared by all tasks": storage["packed"],
        "owners": storage["owners"],
        "other weights of the trunk": storage["trunk"],
        "values of the tasks' own, and their heads": sum(storage["tasks"].values()),
        "all values": value_bytes(facts),
        "one network": storage["one_network"],
    }
    count = len(_without_base(facts))
    if count > 1:
        sizes[f"{count} separate networks"] = storage["separate_networks"]
    sizes["the pack's file, with the layers' configuration"] = facts["bytes"]
    return Table(["storage", "size"], [[name, count_bytes(size)] for name, size in sizes.items()])
