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
    cli.start_keras()
    from packnet_tf.apps.digits import pack_digits

    print(pack_digits(values.output, values.epochs, values.prune_epoch, values.seed))
