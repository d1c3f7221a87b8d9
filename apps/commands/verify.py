"""check exported files against the pack they came from.

Checks checksums, inputs and outputs, classes, weights that must be 0, and outputs on random images
and on those of a folder. Ends with status 1 if something is wrong.

Example:
  packnet verify garden.keras onnx/
  packnet verify garden.keras onnx/ --images=photos/
"""

import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.backend.text import listed
from packnet_tf.export import manifest as manifests
from packnet_tf.reporting.tables import text_table

FLAGS = cli.new_flags()
REQUIRED = POSITIONAL = ("pack", "onnx")
flags.DEFINE_string("pack", None, "The pack, a .keras file.", flag_values=FLAGS)
flags.DEFINE_string(
    "onnx", None, "Folder that packnet export has written, with its manifest.", flag_values=FLAGS
)
flags.DEFINE_string(
    "images",
    None,
    "Folder of images to compare outputs on, in addition to random ones.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "tolerance",
    1e-4,
    "Largest accepted relative difference from Keras; give that of the export if it was larger.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("count", 32, "How many of these images to use.", 1, flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    cli.need_pack(values.pack)
    _check_whole(values.onnx)
    cli.start_keras()
    import packnet_tf
    from packnet_tf.apps.packs import shortfalls
    from packnet_tf.apps.packs.task_images import calibration_images
    from packnet_tf.export import verify

    net = packnet_tf.load(values.pack)
    samples = None
    if values.images:
        images = calibration_images(net, values.pack, values.images, values.count)
        samples = dict.fromkeys(net.tasks, images)
    verdicts = verify(
        net,
        values.onnx,
        samples=samples,
        tolerance=values.tolerance,
        progress=lambda name: print(f"Checking {name} ...", flush=True),
    )
    print(f"\n{verdicts_table(verdicts)}")
    wrong = [verdict for verdict in verdicts if verdict.problems]
    if wrong:
        problems = [f"{v.file} ({v.task}): {problem}" for v in wrong for problem in v.problems]
        raise ValueError(
            f"{len(wrong)} of {len(verdicts)} tasks in '{values.onnx}' are not what the pack "
            "says:\n  " + "\n  ".join(problems) + "\nWrite them again with packnet export."
        )
    checked_all = "The task is" if len(verdicts) == 1 else f"All {len(verdicts)} files are"
    print(f"{checked_all} as the pack says.")
    shortfalls.warn(net)
    checked = {verdict.task for verdict in verdicts}
    others = [name for name in net.tasks if name not in checked]
    if others:
        print(f"The pack has tasks besides, which are not in '{values.onnx}': {', '.join(others)}.")


def _check_whole(folder: str) -> None:
    """Refuses the folder of an update, which lacks what the older bundle has.

    Raises:
        ValueError: it is one.
    """
    manifest = manifests.read(folder)
    changed = manifest.get("changed", [])
    older = {entry["file"] for entry in manifests.described_files(manifest)} - set(changed)
    if changed and older and not any((pathlib.Path(folder) / name).exists() for name in older):
        raise ValueError(
            f"'{folder}' is an update of a bundle, which has only what the bundle lacks "
            f"({listed(changed)}). Copy these files over the bundle, {manifests.NAME} last, and "
            "verify the folder of the bundle."
        )


def verdicts_table(verdicts) -> str:
    """Lays out verdicts, a row per task."""
    rows = [
        [
            verdict.file,
            verdict.task,
            "WRONG" if verdict.problems else "as it should be",
            "" if verdict.zeros is None else f"{verdict.zeros:,}",
            "" if verdict.relative_difference is None else f"{verdict.relative_difference:.1e}",
            f"{verdict.compared_inputs}",
        ]
        for verdict in verdicts
    ]
    head = ["file", "task", "verdict", "zeros", "difference to Keras", "inputs"]
    return text_table(head, rows)
