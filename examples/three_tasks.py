"""Packs three real image tasks into one pretrained trunk, three ways, and compares them.

For folders `DATA/{clothing,hand_signs,scenes}/{train,validation,test}/<class>/<image>` and a
pretrained Tiny Darknet (`DATA/tiny_darknet.keras`, a Keras model that takes RGB of 0 to 1):

  python examples/three_tasks.py --data=DATA --output=runs/three_tasks

"ours" are the defaults of PackNet, "paper" its rules in the paper (norms frozen after the first
task, freed weights restart from zero), "alone" a network of its own for each task, trained from
the same trunk for as many epochs. Every way goes through `packnet train`'s own code; test
accuracy is that of the exported ONNX files. Stopped, the same command continues.
"""

import json
import pathlib

from absl import app, flags

from packnet_tf.apps import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Folder of the tasks and the trunk.", required=True)
flags.DEFINE_string("output", "runs/three_tasks", "Folder for packs, ONNX files and results.")
flags.DEFINE_list("ways", ["ours", "paper", "alone"], "Which ways to run.")
flags.DEFINE_list("tasks", ["clothing", "hand_signs", "scenes"], "Tasks, in the order of packing.")
flags.DEFINE_list("prune_ratios", ["0.5", "0.75", "0"], "One prune ratio per task.")
flags.DEFINE_integer("epochs", 15, "All epochs of a task.")
flags.DEFINE_integer("prune_epoch", 10, "The epoch whose start prunes.")
flags.DEFINE_integer("image_size", 96, "Height and width in pixels.")
flags.DEFINE_integer("seed", 0, "Of weights, shuffling and augmentation.")

# Mirror images of a signing hand are no other sign, but no sign of this data either.
UNFLIPPED = ("hand_signs",)
# With norms frozen after the first task a later one needs a lower rate (measured: a third).
POLICIES = {
    "ours": {},
    "paper": {"norms": "shared", "restart": "zero"},
    "alone": {},
}


def pack_path(way: str, task: str) -> pathlib.Path:
    """Where a way keeps a task: all in one pack, or each in a pack of its own."""
    name = f"{task}.keras" if way == "alone" else "pack.keras"
    return pathlib.Path(FLAGS.output) / way / name


def plan(way: str, place: int):
    """The settings of one task: what `packnet train` would be given as flags."""
    from packnet_tf.apps.packs.training import Plan

    task = FLAGS.tasks[place]
    data = pathlib.Path(FLAGS.data)
    return Plan(
        pack=str(pack_path(way, task)),
        task=task,
        data=str(data / task),
        trunk=str(data / "tiny_darknet.keras"),
        trunk_output="leaky_re_lu_15",  # the last layer before its ImageNet head
        image_size=FLAGS.image_size,
        adopt="none",  # the first task may change the whole trunk, as in the paper
        epochs=FLAGS.epochs,
        prune_epoch=FLAGS.prune_epoch,
        prune_ratio=0.0 if way == "alone" else float(FLAGS.prune_ratios[place]),
        gradual=False,  # at once and at one rate in all ways, as in the paper
        scale_rate=False,
        learning_rate=0.001 if way == "paper" and place else 0.003,
        flip=task not in UNFLIPPED,
        seed=FLAGS.seed,
        **POLICIES[way],
    )


def run_task(way: str, place: int) -> dict:
    """Trains one task one way, unless that is done already; returns its results."""
    from packnet_tf.apps.packs.training import train

    task, folder = FLAGS.tasks[place], pathlib.Path(FLAGS.output) / way
    done = folder / f"{task}.json"
    if done.exists():
        return json.loads(done.read_text())
    print(f"\n== {way}: {task}", flush=True)
    report = train(plan(way, place))
    print(report, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps(report.accuracy))
    return report.accuracy


def exported_accuracy(way: str, place: int) -> dict:
    """Test accuracy of a task's ONNX file, made from the final pack, and Keras's beside it."""
    import packnet_tf
    from packnet_tf.apps.device.onnx_accuracy import onnx_accuracy
    from packnet_tf.apps.images.folders import read_folder
    from packnet_tf.apps.images.pipeline import Pipeline
    from packnet_tf.export import export_all

    task, folder = FLAGS.tasks[place], pathlib.Path(FLAGS.output) / way
    net = packnet_tf.load(pack_path(way, task))
    onnx = folder / (f"onnx_{task}" if way == "alone" else "onnx")
    entry = export_all(net, onnx, tasks=[task], verbose=False)["tasks"]
    entry = next(item for item in entry if item["task"] == task)
    shape = (FLAGS.image_size, FLAGS.image_size, 3)
    files = read_folder(pathlib.Path(FLAGS.data) / task).files["test"]
    batches = list(Pipeline(shape, 32, 0).evaluation(files).as_numpy_iterator())
    view = net.task_model(task)
    right = sum(
        int((view.predict_on_batch(images).argmax(-1) == labels).sum())
        for images, labels in batches
    )
    return {
        "keras": right / len(files),
        "onnx": onnx_accuracy(onnx / entry["file"], batches),
        "difference": entry["relative_difference"],
        "pack_bytes": (folder / (f"{task}.keras" if way == "alone" else "pack.keras"))
        .stat()
        .st_size,
    }


def main(_) -> None:
    cli.start_keras()
    from packnet_tf.reporting.tables import count_bytes, text_table

    results, rows = {}, []
    for way in FLAGS.ways:
        tests = []
        trained = [run_task(way, place) for place in range(len(FLAGS.tasks))]
        for place, task in enumerate(FLAGS.tasks):
            exported = exported_accuracy(way, place)
            results[f"{way}/{task}"] = {**trained[place], **exported}
            tests.append(exported["onnx"])
            moments = [trained[place].get(m) for m in ("before the prune", "after it", "retrained")]
            rows.append(
                [
                    f"{way}, {task}",
                    *("-" if value is None else f"{value:.1%}" for value in moments),
                    *(f"{value:.1%}" for value in (trained[place]["test"], exported["keras"])),
                    f"{exported['onnx']:.1%}",
                    f"{exported['difference']:.0e}",
                    count_bytes(exported["pack_bytes"]),
                ]
            )
        mean = sum(tests) / len(tests)
        rows.append([f"{way}, mean", *["-"] * 5, f"{mean:.1%}", "-", "-"])
    head = ["way, task", "before prune", "after it", "retrained", "test, packed"]
    head += ["test, at the end", "test, ONNX", "ONNX - Keras", "file"]
    print("\nAccuracy: the first three on validation images, the others on test images.")
    print(text_table(head, rows))
    output = pathlib.Path(FLAGS.output) / "results.json"
    output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nResults: {output}")


if __name__ == "__main__":
    app.run(main)
