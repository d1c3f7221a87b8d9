"""measure what packing costs.

Benches:
  prune    one large layer pruned by net.prune: seconds and peak memory, against one
           numpy.partition over the same weights

Example:
  packnet bench prune --inputs=25088 --units=4096
"""

from absl import flags

from packnet_tf.apps import cli

FLAGS = cli.new_flags()
TAKES_ARGUMENTS = True
flags.DEFINE_integer(
    "inputs", 25088, "prune: inputs of the layer (VGG-16's fc6).", 1, flag_values=FLAGS
)
flags.DEFINE_integer("units", 4096, "prune: units of the layer.", 1, flag_values=FLAGS)
flags.DEFINE_integer("repeats", 3, "How often to measure.", 1, flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments != ["prune"]:
        raise cli.UsageError("name one bench: prune")
    cli.start_keras()
    from packnet_tf.apps.bench_prune import bench_prune

    print(bench_prune(values.inputs, values.units, values.repeats))
