"""show a pack: its tasks, heads, classes, capacity, storage, and a picture.

Example:
  packnet report garden.keras --picture=garden.png
"""

import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.tables import count_bytes, text_table

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack",)
flags.DEFINE_string("pack", None, "The pack, a .keras file.", flag_values=FLAGS)
flags.DEFINE_string(
    "picture",
    None,
    "Picture of who owns which share of every layer (.png, .svg or .pdf); default: beside the "
    "pack, with the suffix .png. 'none' draws nothing.",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    cli.need_pack(values.pack)
    cli.start_keras()
    import packnet_tf
    from packnet_tf.apps import shortfalls

    path = pathlib.Path(values.pack)
    net = packnet_tf.load(path)
    policy = net.policy
    print(f"{path}: {len(net.tasks)} tasks; biases {policy.biases}, norms {policy.norms}, ", end="")
    print(f"embeddings {policy.embeddings}, freed weights restart from {policy.restart}")
    if net.open_model is not None:
        print(f"Task '{net.open_model.task_name}' is still open.")
    print()
    print(tasks_table(net))
    shortfalls.warn(net)
    print()
    print(net.capacity())
    print()
    print(storage_table(net, path.stat().st_size))
    if values.picture != "none":
        picture = pathlib.Path(values.picture or path.with_suffix(".png"))
        packnet_tf.plot_capacity(net.capacity(), picture)
        print(f"\nPicture: {picture}")


MOMENTS = ("linear_head", "before_prune", "retrained", "test")


def tasks_table(net) -> str:
    """One row per task: its outputs, the layers of its head, its accuracies, its classes."""
    rows = []
    for number, name in enumerate(net.tasks, start=1):
        model = net.task_model(name)
        classes = net.classes(name)
        shown = ", ".join(classes) if classes else "-"
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        found = net.results(name)
        rows.append(
            [
                name,
                str(number),
                str(model.output_shape[-1]),
                _head(model.head),
                *(f"{found[m]:.1%}" if m in found else "-" for m in MOMENTS),
                shown,
            ]
        )
    moments = [moment.replace("_", " ") for moment in MOMENTS]
    return text_table(["task", "number", "outputs", "head", *moments, "classes"], rows)


def _head(head) -> str:
    layers = getattr(head, "layers", None) or [head]
    return " + ".join(type(layer).__name__ for layer in layers)


def storage_table(net, file_bytes: int) -> str:
    """What the numbers of the pack take, against one network and one per task."""
    usage = net.storage()
    rows = [
        ["packed weights, shared by all tasks", count_bytes(usage["packed"])],
        ["owners", count_bytes(usage["owners"])],
        ["other weights of the trunk", count_bytes(usage["trunk"])],
        *(
            [f"own values and head of {name}", count_bytes(size)]
            for name, size in usage["tasks"].items()
        ),
        ["the file", count_bytes(file_bytes)],
        ["one network", count_bytes(usage["one_network"])],
        [f"{len(net.tasks)} networks", count_bytes(usage["separate_networks"])],
    ]
    return text_table(["storage", "size"], rows)
