"""write the tasks of a pack as ONNX files, with a manifest.

Writes a file per task; with --bundle small graphs that share one file of weights; with --multitask
one file that answers for all tasks.

Example:
  packnet export garden.keras onnx/
  packnet export garden.keras onnx/ --for=edge
  packnet export garden.keras onnx/ --preprocessing=uint8 --outputs=top_k
  packnet export garden.keras small/ --task=flowers --precision=int8 \\
      --calibration=flowers/train/ --evaluate=flowers/
  packnet export garden.keras bundle/ --bundle
  packnet export garden.keras update/ --bundle --update_from=bundle/
  packnet export garden.keras bundle/ --bundle --for=edge
  packnet export garden.keras garden.onnx --multitask --for=edge
  packnet export garden.keras onnx/ --router=garden.npz
"""

import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.apps.device.labelled import define_folders

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack", "output")
MAIN = ("pack", "output", "for", "task", "names", "preprocessing", "outputs", "bundle", "multitask",
        "router")  # fmt: skip
flags.DEFINE_string("pack", None, "The pack, a .keras file.", flag_values=FLAGS)
flags.DEFINE_string(
    "output", None, "Folder for the .onnx files; with --multitask, the file.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "for",
    None,
    ["edge"],
    "edge: --preprocessing=uint8 --outputs=top_k --precision=int8, calibrated on the images that "
    "each task was trained with, and accuracy measured on its test images. packnet train notes "
    "their folders in the pack. Other flags win over these.",
    flag_values=FLAGS,
)
flags.DEFINE_list("task", None, "Only these tasks, separated by commas.", flag_values=FLAGS)
flags.DEFINE_enum(
    "names",
    "number",
    ["number", "task"],
    "Names of the files: number: model_task3.onnx, by the order of packing; task: leaves.onnx.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("softmax", False, "The same as --outputs=probabilities.", flag_values=FLAGS)
flags.DEFINE_enum(
    "outputs",
    "logits",
    ["logits", "probabilities", "top_k"],
    "Outputs of the files; top_k: the most probable classes and their probabilities.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "top_k", None, "With --outputs=top_k, the number of classes; default 5, or all "
    "if there are fewer.", 1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "preprocessing",
    "trained",
    ["trained", "uint8"],
    "uint8: the files take decoded images of any size, and resize and scale them.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "channel_order",
    "rgb",
    ["rgb", "bgr"],
    "With --preprocessing=uint8, the channel order of the images.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "float16", "int8"],
    "Precision of weights and computation; with --bundle and no calibration, of the stored weights "
    "alone.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "reduce_range",
    False,
    "With --precision=int8, keep weights to 7 bits, for x86 CPUs without VNNI.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "calibration",
    None,
    "With --precision=int8, a folder of typical images for calibrating the ranges of activations; "
    "without it the ranges are computed at run time, and a bundle computes in float32.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("calibration_images", 200, "How many of them to use.", 1, flag_values=FLAGS)
define_folders(
    FLAGS,
    "evaluate",
    "Folder of a task's labelled images, to measure accuracy on",
    "those that training held out of the folder",
)
flags.DEFINE_boolean(
    "multitask",
    False,
    "One file that answers for all tasks, or for those that its input 'tasks' asks for, and "
    "computes what they share once: the stem of the pack, and the preprocessing.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean("bundle", False, "Share the weights between the tasks.", flag_values=FLAGS)
flags.DEFINE_string(
    "update_from",
    None,
    "With --bundle, the folder of an earlier bundle: write only what it lacks.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "optimized",
    False,
    "With --bundle, also write a .ort file per task, optimized by ONNX Runtime.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "router",
    None,
    "Also write router.onnx, which tells the task of an image, see packnet predict --router. The "
    "file named here, FILE.npz, keeps what the router knows of each task: tasks that it lacks are "
    "added from the folders that they were trained with, and released ones go.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("opset", None, "ONNX operator set; default 17 or 18.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", None, "A fixed batch size; default any.", 1, flag_values=FLAGS)
flags.DEFINE_float(
    "tolerance", 1e-4, "Largest accepted relative difference from Keras.", flag_values=FLAGS
)
EDGE = {"preprocessing": "uint8", "outputs": "top_k", "precision": "int8"}
OPTIONS = (
    *("softmax", "outputs", "top_k", "preprocessing", "channel_order", "precision"),
    *("reduce_range", "opset", "batch_size", "tolerance"),
)
ROUTER_FILE = "router.onnx"
ROUTER_OPTIONS = ("preprocessing", "channel_order", "opset", "batch_size", "tolerance")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    edge = values["for"].value == "edge"
    if edge:
        _set_for_edge(values)
    _check(values)
    cli.need_pack(values.pack)
    cli.start_keras()
    import packnet_tf
    from packnet_tf.apps.packs import shortfalls
    from packnet_tf.apps.packs.task_images import (
        calibration_images,
        labelled_batches,
        noted_images,
        updated_router,
    )
    from packnet_tf.export import export_all, export_bundle, export_multitask, export_router
    from packnet_tf.export.manifest import file_names
    from packnet_tf.export.multitask.export_multitask import default_tasks

    net = packnet_tf.load(values.pack)
    given = _options(values)
    if not values.multitask:
        given["names"] = values.names
    given["progress"] = lambda name: print(f"Exporting {name} ...", flush=True)
    given["verbose"] = False
    if values.router and ROUTER_FILE in file_names(values.names, net.tasks).values():
        raise cli.UsageError(
            f"the task 'router' and the router would both be {ROUTER_FILE}; leave --names=task out"
        )
    every = default_tasks(net) if values.multitask else list(net.tasks)
    tasks = values.task or every
    calibration, evaluate = None, {}
    if edge:
        calibrates = values.precision == "int8" and not values.calibration
        count = values.calibration_images if calibrates else None
        typical, evaluate = noted_images(net, values.pack, tasks, count)
        calibration = typical if calibrates else None
    if values.evaluate:
        evaluate |= labelled_batches(net, values.pack, tasks, values.evaluate)
    given["evaluate"] = evaluate or None
    if values.calibration:
        calibration = calibration_images(
            net, values.pack, values.calibration, values.calibration_images
        )
    given["calibration"] = calibration
    if values.bundle:
        exported = export_bundle(
            net, values.output, update_from=values.update_from, optimized=values.optimized, **given
        )
    else:
        write = export_multitask if values.multitask else export_all
        exported = write(net, values.output, tasks=values.task, **given)
    print()
    print(exported)
    if values.router:
        router = updated_router(net, values.pack, values.router)
        print(f"\n{router}", flush=True)
        path = pathlib.Path(values.output) / ROUTER_FILE
        export_router(router, path, **{name: getattr(values, name) for name in ROUTER_OPTIONS})
    if not values.multitask:
        print(f"\nManifest: {pathlib.Path(values.output) / 'manifest.json'}")
    shortfalls.warn(net)


def _set_for_edge(values: flags.FlagValues) -> None:
    """Sets the flags that `--for=edge` stands for, where they are not given."""
    for name, value in EDGE.items():
        if not values[name].present and not (name == "outputs" and values.softmax):
            values[name].value = value


def _check(values: flags.FlagValues) -> None:
    if values.multitask and values.bundle:
        raise cli.UsageError("--multitask writes one file, and --bundle several; leave one out")
    if values.multitask and values["names"].present:
        raise cli.UsageError("--multitask writes one file, which --output names; leave --names out")
    if values.router and values.multitask:
        raise cli.UsageError("a router chooses among files; leave out --router, or --multitask")
    if values.router and pathlib.Path(values.router).suffix != ".npz":
        raise cli.UsageError(
            f"--router={values.router} is where the router's knowledge is kept; name it FILE.npz"
        )
    output = pathlib.Path(values.output)
    if output.suffix == ".onnx" and not values.multitask and not output.is_dir():
        raise cli.UsageError(
            f"every task gets a file in the folder --output, and {values.output} is named like a "
            f"file; write {output.with_suffix('')}/, or add --multitask for one file of all tasks"
        )
    if values.bundle and values.task:
        raise cli.UsageError("a bundle holds all tasks; leave out --task, or --bundle")
    for name in ("update_from", "optimized"):
        if getattr(values, name) and not values.bundle:
            raise cli.UsageError(f"--{name} is for bundles; add --bundle")
    if values.calibration and values.precision != "int8":
        raise cli.UsageError("--calibration is for --precision=int8")
    from packnet_tf.export.options import ExportOptions

    with cli.as_usage():
        ExportOptions(**_options(values))


def _options(values: flags.FlagValues) -> dict:
    return {name: getattr(values, name) for name in OPTIONS}
