"""write the tasks of a pack as ONNX files, with a manifest.

Example:
  packnet export --pack=garden.keras --output=onnx/
"""

import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.tables import count_bytes, text_table

FLAGS = cli.new_flags()
REQUIRED = ("pack", "output")
flags.DEFINE_string("pack", None, "The pack, a .keras file.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the .onnx files.", flag_values=FLAGS)
flags.DEFINE_list("task", None, "Only these tasks, separated by commas.", flag_values=FLAGS)
flags.DEFINE_boolean("softmax", False, "End in probabilities, not logits.", flag_values=FLAGS)
flags.DEFINE_integer("opset", 17, "ONNX operator set.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", None, "A fixed batch; default any.", 1, flag_values=FLAGS)
flags.DEFINE_float(
    "tolerance", 1e-4, "Largest relative difference to Keras accepted.", flag_values=FLAGS
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    cli.start_keras()
    import packnet_tf
    from packnet_tf.export import export_all

    net = packnet_tf.load(values.pack)
    manifest = export_all(
        net,
        values.output,
        tasks=values.task,
        progress=lambda name: print(f"Exporting {name} ...", flush=True),
        softmax=values.softmax,
        opset=values.opset,
        batch_size=values.batch_size,
        tolerance=values.tolerance,
    )
    print()
    print(files_table(manifest))
    print(f"\nManifest: {pathlib.Path(values.output) / 'manifest.json'}")


def files_table(manifest: dict) -> str:
    """One row per exported file."""
    rows = [
        [
            task["file"],
            task["task"],
            count_bytes(task["bytes"]),
            f"{task['relative_difference']:.1e}",
        ]
        for task in manifest["tasks"]
    ]
    return text_table(["file", "task", "size", "difference to Keras"], rows)
