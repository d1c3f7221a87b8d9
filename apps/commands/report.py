"""show a pack: its tasks, their accuracies and shares, its storage, and a picture.

Example:
  packnet report garden.keras --picture=garden.png
  packnet report garden.keras --json
"""

import dataclasses
import json
import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.reporting.tables import count_bytes, text_table

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack",)
flags.DEFINE_string("pack", None, "The pack, a .keras file.", flag_values=FLAGS)
flags.DEFINE_string(
    "picture",
    None,
    "File for a picture of the share of every layer that each task owns (.png, .svg or .pdf); "
    "default: beside the pack, with the suffix .png. 'none' draws nothing.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("layers", False, "Also show who owns how much per layer.", flag_values=FLAGS)
flags.DEFINE_boolean("json", False, "Print all of it as JSON, and draw nothing.", flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    cli.need_pack(values.pack)
    cli.start_keras()
    import packnet_tf
    from packnet_tf.apps.packs import shortfalls

    path = pathlib.Path(values.pack)
    net = packnet_tf.load(path)
    if values.json:
        print(json.dumps(as_json(net, path), indent=2))
        return
    policy, capacity = net.policy, net.capacity()
    count = len(net.tasks)
    print(
        f"{path}: {count} {'task' if count == 1 else 'tasks'}, {capacity.free:.1%} of the packed "
        f"weights free; biases {policy.biases}, norms {policy.norms}, embeddings "
        f"{policy.embeddings}, freed weights restart from {policy.restart}"
    )
    if net.open_model is not None:
        print(f"Task '{net.open_model.task_name}' is still open.")
    print()
    print(tasks_table(net))
    shortfalls.warn(net)
    print()
    if values.layers:
        print(f"{capacity}\n")
    print(storage_table(net, path.stat().st_size))
    if values.picture != "none":
        picture = pathlib.Path(values.picture or path.with_suffix(".png"))
        packnet_tf.plot_capacity(capacity, picture)
        print(f"\nPicture: {picture}")


MOMENTS = ("linear_head", "before_prune", "retrained", "test")


def tasks_table(net) -> str:
    """Lays out the tasks, a row each: classes, accuracies, share of packed weights, and bytes."""
    whole, sizes = net.capacity().sum(), net.storage()["tasks"]
    rows = []
    for number, name in enumerate(net.tasks, start=1):
        found, classes = net.results(name), net.classes(name)
        rows.append(
            [
                str(number),
                name,
                str(len(classes)) if classes else "-",
                *(f"{found[m]:.1%}" if m in found else "-" for m in MOMENTS),
                f"{whole['owned'][name] / whole['total']:.1%}",
                count_bytes(sizes[name]),
            ]
        )
    moments = [moment.replace("_", " ") for moment in MOMENTS]
    return text_table(["", "task", "classes", *moments, "owns", "of its own"], rows)


def as_json(net, path: pathlib.Path) -> dict:
    """Returns the report as a dict for JSON; shares and accuracies are 0 to 1."""
    from packnet_tf.apps.packs import shortfalls

    whole, storage = net.capacity().sum(), net.storage()
    tasks = [
        {
            "task": name,
            "number": number,
            "classes": net.classes(name),
            "sees": list(net.reused(name)),
            "results": net.results(name),
            "owns": whole["owned"][name] / whole["total"],
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
        "shortfalls": shortfalls.of_pack(net),
        "capacity": net.capacity().to_dict(),
        "storage": storage,
    }


def storage_table(net, file_bytes: int) -> str:
    """Lays out the storage of the pack, against one network and one network per task."""
    storage = net.storage()
    rows = [
        ["packed weights, shared by all tasks", count_bytes(storage["packed"])],
        ["owners", count_bytes(storage["owners"])],
        ["other weights of the trunk", count_bytes(storage["trunk"])],
        ["values of the tasks' own, and their heads", count_bytes(sum(storage["tasks"].values()))],
        ["the file", count_bytes(file_bytes)],
        ["one network", count_bytes(storage["one_network"])],
        [f"{len(net.tasks)} networks", count_bytes(storage["separate_networks"])],
    ]
    return text_table(["storage", "size"], rows)
