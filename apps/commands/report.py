"""show a pack: its tasks, their accuracies and shares, its storage, and a picture.

With --html, the report is a page that also has the learning curves and, with --data or --model,
a confusion matrix per task and the pictures that it is most wrong about.

Example:
  packnet report garden.keras
  packnet report garden.keras --html=report.html --data=leaves:photos/leaves
  packnet report garden.keras --router=garden.npz
  packnet report garden.keras --json
"""

import json
import os
import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.labelled import define_folders

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack",)
MAIN = ("pack", "html", "data", "layers", "json")
flags.DEFINE_string("pack", None, "The pack, a .keras file.", flag_values=FLAGS)
flags.DEFINE_string(
    "html", None, "File for the report as a self-contained page.", flag_values=FLAGS
)
define_folders(
    FLAGS,
    "data",
    "With --html, a task's folder of labelled images to measure on",
    "those that training held out of the folder",
)
flags.DEFINE_string(
    "model",
    None,
    "With --html, an exported .onnx file, or a folder of them, to measure instead of the pack; "
    "tasks that --data does not name are measured on the folders that they were trained on.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "router",
    None,
    "The router's file (packnet export --router): also show its tasks and their bytes.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "picture",
    None,
    "File for a picture of the share of every layer that each task owns (.png, .svg or .pdf); "
    "default: beside the pack, with the suffix .png, unless there is another picture of that name. "
    "'none' draws nothing.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("layers", False, "Also show who owns how much per layer.", flag_values=FLAGS)
flags.DEFINE_boolean("json", False, "Print all of it as JSON, and draw nothing.", flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    _check(values)
    cli.start_keras()
    import packnet_tf
    from packnet_tf.apps.packs import shortfalls
    from packnet_tf.apps.packs.standing import (
        capacity_bar,
        policy_line,
        sentence,
        standing,
        storage_table,
        tasks_table,
    )
    from packnet_tf.reporting.tables import text_table

    path = pathlib.Path(values.pack)
    net = packnet_tf.load(path)
    facts = standing(net, path)
    router = packnet_tf.TaskRouter.load(values.router, net) if values.router else None
    if router is not None:
        facts["router"] = router.storage()
    if values.json:
        print(json.dumps(facts, indent=2))
        return
    print(sentence(facts))
    print(policy_line(facts))
    if facts["open"] is not None:
        print(f"Task '{facts['open']}' is still open.")
    if facts["tasks"]:
        tasks = tasks_table(facts)
        print(f"\n{text_table(tasks.head, tasks.rows)}")
    shortfalls.warn(net)
    print(f"\n{capacity_bar(facts)}\n")
    if values.layers:
        print(f"{net.capacity()}\n")
    storage = storage_table(facts)
    print(text_table(storage.head, storage.rows))
    if router is not None:
        print(f"\n{router}")
    if values.html is not None:
        from packnet_tf.apps.pages.pack_report import write_pack_report

        write_pack_report(values.html, net, facts, values.data, values.model)
        print(f"\nPage: {values.html}")
    if values.picture != "none" and (values.html is None or values.picture):
        _draw(net, path, values.picture)


def _check(values: flags.FlagValues) -> None:
    """Refuses what cannot work, before Keras and TensorFlow are imported."""
    if values.router and not os.path.exists(values.router):
        raise FileNotFoundError(
            f"There is no router '{values.router}'. Write one with packnet export {values.pack} "
            f"DIR --router={values.router}."
        )
    if values.html is None:
        for name in ("data", "model"):
            if values[name].value:
                raise cli.UsageError(f"--{name} is for the page; add --html=report.html")
    elif values.json:
        raise cli.UsageError("--json prints, and --html writes a page; leave one of them out")
    elif os.path.isdir(values.html):
        page = os.path.join(values.html, "report.html")
        raise cli.UsageError(f"--html={values.html} is a folder; write --html={page}")
    cli.need_pack(values.pack)
    if values.html is not None:
        cli.need("jinja2", "jinja2")
        cli.need("matplotlib", "matplotlib")


def _draw(net, pack: pathlib.Path, given: str | None) -> None:
    """Draws who owns which share of every layer, beside the pack if no file is given."""
    import packnet_tf
    from packnet_tf.reporting.plotting import need_matplotlib

    need_matplotlib()
    from packnet_tf.reporting.figures import is_by

    picture = pathlib.Path(given or pack.with_suffix(".png"))
    if given is None and picture.is_file() and not is_by(picture, "plot_capacity"):
        print(
            f"\nNo picture, as there is a '{picture}' that this version of packnet report has not "
            f"drawn. Name another file, --picture=FILE, or write --picture={picture} to replace it."
        )
        return
    try:
        packnet_tf.plot_capacity(net, picture)
        print(f"\nPicture: {picture}")
    except OSError as error:
        if given:
            raise
        print(f"\nNo picture, as '{picture}' cannot be written: {error.strerror}.")
