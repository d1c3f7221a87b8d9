"""measure what packing costs, and check that it holds.

Benches:
  prune     one large layer pruned by net.prune: seconds and peak memory, against one
            numpy.partition over the same weights
  networks  the whole way, from packing three tasks to an ONNX file, for every network of
            keras.applications: what is packed, and whether all that must be equal is equal
  deploy    the files of a pack's tasks, baked one by one, as a bundle, in float16 and int8, beside
            the network never packed: bytes, time to load, memory, latency

Example:
  packnet bench prune --inputs=25088 --units=4096
  packnet bench networks --networks=VGG16,ResNet50 --json=networks.json
  packnet bench deploy --networks=MobileNetV2 --image_size=96 --json=deployment.json
"""

import json
import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.atomic import replacing

FLAGS = cli.new_flags()
TAKES_ARGUMENTS = True
BENCHES = ("prune", "networks", "deploy")
flags.DEFINE_integer(
    "inputs", 25088, "prune: inputs of the layer (VGG-16's fc6).", 1, flag_values=FLAGS
)
flags.DEFINE_integer("units", 4096, "prune: units of the layer.", 1, flag_values=FLAGS)
flags.DEFINE_integer("repeats", 3, "prune, deploy: how often to measure.", 1, flag_values=FLAGS)
flags.DEFINE_list(
    "networks",
    [],
    "networks, deploy: names in keras.applications, and for deploy TinyDarknet; if left out, all, "
    "and for deploy TinyDarknet, MobileNetV2, ResNet50, VGG16.",
    flag_values=FLAGS,
)
flags.DEFINE_string("json", None, "networks, deploy: file for the results.", flag_values=FLAGS)
flags.DEFINE_integer(
    "image_size",
    None,
    "deploy: height and width in pixels; 96 for TinyDarknet and 224 for others if left out.",
    32,
    flag_values=FLAGS,
)
flags.DEFINE_integer("tasks", 4, "deploy: how many tasks share a trunk.", 1, flag_values=FLAGS)
flags.DEFINE_integer(
    "threads", 0, "deploy: that onnxruntime calculates with; 0: its default.", 0, flag_values=FLAGS
)
flags.DEFINE_string(
    "trunk", None, "deploy: a .keras file for TinyDarknet; else random.", flag_values=FLAGS
)
flags.DEFINE_string(
    "trunk_output", None, "deploy: the layer of --trunk that the trunk ends at.", flag_values=FLAGS
)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in BENCHES:
        raise cli.UsageError(f"name one bench: {', '.join(BENCHES)}")
    cli.start_keras()
    if arguments == ["prune"]:
        from packnet_tf.apps.bench_prune import bench_prune

        print(bench_prune(values.inputs, values.units, values.repeats))
    elif arguments == ["networks"]:
        _networks(values)
    else:
        _deploy(values)


def _networks(values: flags.FlagValues) -> None:
    from packnet_tf.apps import bench_networks as bench

    known = bench.network_names()
    _check_names(values.networks, known)
    results = bench.bench_networks(values.networks or known, lambda line: print(line, flush=True))
    print(f"\n{bench.networks_table(results)}")
    _write(values.json, results)
    failed = [result["network"] for result in results if not result.get("bit_exact")]
    print(f"{len(results) - len(failed)} of {len(results)} networks: bit-exact and exported.")
    if failed:
        raise RuntimeError(f"the promises do not hold for {', '.join(failed)}")


def _deploy(values: flags.FlagValues) -> None:
    from packnet_tf.apps import bench_deploy as bench
    from packnet_tf.apps.bench_networks import network_names

    names = values.networks or list(bench.NETWORKS)
    _check_names(names, network_names(), bench.DARKNET)
    if values.trunk is not None and bench.DARKNET not in names:
        raise cli.UsageError(
            f"--trunk is the file of {bench.DARKNET}, which is not among --networks; add it there"
        )
    if values.trunk is None and values.trunk_output is not None:
        raise cli.UsageError("--trunk_output is a layer of the file --trunk, which is missing")
    if values.trunk is not None and not pathlib.Path(values.trunk).exists():
        raise cli.UsageError(f"there is no file --trunk={values.trunk}; name a .keras model")
    found = bench.bench_deploy(
        names,
        image_size=values.image_size,
        tasks=values.tasks,
        rounds=values.repeats,
        threads=values.threads,
        trunk=values.trunk,
        trunk_output=values.trunk_output,
        progress=lambda line: print(line, flush=True),
    )
    print(f"\n{bench.deploy_table(found)}")
    _write(values.json, found)
    failed = [result["network"] for result in found["networks"] if "error" in result]
    if failed:
        raise RuntimeError(f"nothing could be measured for {', '.join(failed)}")


def _check_names(names: list[str], known: list[str], *others: str) -> None:
    strange = [name for name in names if name not in (*known, *others)]
    if strange:
        besides = f" besides {', '.join(others)}" if others else ""
        raise cli.UsageError(
            f"keras.applications has no network '{strange[0]}'; it has{besides} {', '.join(known)}"
        )


def _write(path: str | None, results) -> None:
    if path:
        with replacing(pathlib.Path(path)) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
