"""pack three tasks of handwritten digits into one small network, export and check them.

Uses scikit-learn's 1,797 images of digits (8 x 8 pixels). Task 1 classifies the digits 0 to 3,
task 2 4 to 6, task 3 7 to 9. Takes about a minute on two cores.

Example:
  packnet demo --output=demo/
"""

import pathlib

from absl import flags

from packnet_tf.apps import cli

FLAGS = cli.new_flags()
flags.DEFINE_string("output", "demo", "Folder for the files it writes.", flag_values=FLAGS)
flags.DEFINE_integer("epochs", 15, "All epochs of a task.", 2, flag_values=FLAGS)
flags.DEFINE_integer("prune_epoch", 10, "Prune at the start of this epoch.", 0, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of weights and shuffling.", flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if values.prune_epoch >= values.epochs:
        raise cli.UsageError("--prune_epoch must be below --epochs")
    if pathlib.Path(values.output).is_file():
        raise cli.UsageError(f"--output={values.output} is a file; name a folder to write to")
    cli.need("sklearn", "scikit-learn")
    cli.need("matplotlib", "matplotlib")
    if not values["output"].present:
        _check_free(pathlib.Path(values.output))
    cli.start_keras()
    from packnet_tf.apps.digits import pack_digits

    print(pack_digits(values.output, values.epochs, values.prune_epoch, values.seed))


def _check_free(output: pathlib.Path) -> None:
    """Refuses the default folder if it has a pack that is not of an earlier demo."""
    from packnet_tf.reporting.figures import is_by

    if (output / "pack.keras").exists() and not is_by(output / "owners.png", "plot_capacity"):
        raise cli.UsageError(
            f"there is a '{output / 'pack.keras'}' that no packnet demo of this version has "
            f"written; name another folder, --output=FOLDER, or write --output={output} to replace "
            "it"
        )
