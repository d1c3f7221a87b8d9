"""measure what packing costs, and check that it holds.

Benches:
  prune     one large layer pruned by net.prune: seconds and peak memory, against one
            numpy.partition over the same weights
  networks  the whole way, from packing three tasks to an ONNX file, for every network of
            keras.applications: what is packed, and whether all that must be equal is equal

Example:
  packnet bench prune --inputs=25088 --units=4096
  packnet bench networks --networks=VGG16,ResNet50 --json=networks.json
"""

import json
import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.atomic import replacing

FLAGS = cli.new_flags()
TAKES_ARGUMENTS = True
BENCHES = ("prune", "networks")
flags.DEFINE_integer(
    "inputs", 25088, "prune: inputs of the layer (VGG-16's fc6).", 1, flag_values=FLAGS
)
flags.DEFINE_integer("units", 4096, "prune: units of the layer.", 1, flag_values=FLAGS)
flags.DEFINE_integer("repeats", 3, "prune: how often to measure.", 1, flag_values=FLAGS)
flags.DEFINE_list(
    "networks", [], "networks: names in keras.applications; all if left out.", flag_values=FLAGS
)
flags.DEFINE_string("json", None, "networks: file for the results.", flag_values=FLAGS)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in BENCHES:
        raise cli.UsageError(f"name one bench: {', '.join(BENCHES)}")
    cli.start_keras()
    if arguments == ["prune"]:
        from packnet_tf.apps.bench_prune import bench_prune

        print(bench_prune(values.inputs, values.units, values.repeats))
    else:
        _networks(values)


def _networks(values: flags.FlagValues) -> None:
    from packnet_tf.apps import bench_networks as bench

    known = bench.network_names()
    strange = [name for name in values.networks if name not in known]
    if strange:
        raise cli.UsageError(
            f"keras.applications has no network '{strange[0]}'; it has {', '.join(known)}"
        )
    results = bench.bench_networks(values.networks or known, lambda line: print(line, flush=True))
    print(f"\n{bench.networks_table(results)}")
    if values.json:
        with replacing(pathlib.Path(values.json)) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    failed = [result["network"] for result in results if not result.get("bit_exact")]
    print(f"{len(results) - len(failed)} of {len(results)} networks: bit-exact and exported.")
    if failed:
        raise RuntimeError(f"the promises do not hold for {', '.join(failed)}")
