"""measure what packing costs, and check that it holds.

Benches, each side by side with what it is compared with, in turns:
  train      a training step, packed and plain: five networks, graph, XLA and mixed_bfloat16, two
             optimizers; PackTrainer and fit
  reference  the same step and prune in PyTorch by the reference method, where torch is installed
  memory     the most memory of training, packed and plain
  prune      a whole network pruned, beside one numpy.partition of every layer
  storage    a pack of four tasks saved and loaded, beside Keras's own of the plain trunk
  export     export_onnx beside tf2onnx on the unpacked model
  infer      exported files in onnxruntime beside the network never packed; the start of commands
  scale      1, 10, 50 and 100 tasks on one trunk: steps, views, files
  input      reading images beside the training step that they feed; fit with the tuner of
             tf.data and without
  import     importing packnet_tf beside importing Keras
  deploy     the files of a pack's tasks in every form: bytes, time to load, memory, latency
  networks   no timing: the whole way for every network of keras.applications, and whether all that
             must be equal is equal

Example:
  packnet bench train --only='ResNet50,graph' --json=train.json
  packnet bench deploy --networks=MobileNetV2 --image_size=96 --json=deployment.json
"""

import dataclasses
import importlib
import json
import pathlib

from absl import flags

from packnet_tf.apps import cli
from packnet_tf.backend.atomic import replacing

FLAGS = cli.new_flags()
TAKES_ARGUMENTS = True
# The modules in `benches` whose function `bench` yields rows.
ROWS = {
    name: {"import": "imports", "input": "inputs"}.get(name, name)
    for name in (
        "train", "reference", "memory", "prune", "storage", "export", "infer", "scale", "input",
        "import",
    )
}  # fmt: skip
BENCHES = (*ROWS, "deploy", "networks")
# Flags that not all benches have, and which do.
TAKEN_BY = {
    "only": tuple(ROWS),
    "repeats": (*ROWS, "deploy"),
    "networks": ("deploy", "networks"),
    **dict.fromkeys(("image_size", "tasks", "threads", "trunk", "trunk_output"), ("deploy",)),
}
flags.DEFINE_list(
    "only",
    [],
    "All but deploy and networks: only the cases whose name has all of these words in it.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "repeats",
    None,
    "How often to measure; 3 for deploy and memory and 7 for others if left out.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "networks",
    [],
    "networks, deploy: names in keras.applications, and for deploy TinyDarknet; if left out, all, "
    "and for deploy TinyDarknet, MobileNetV2, ResNet50, VGG16.",
    flag_values=FLAGS,
)
flags.DEFINE_string("json", None, "File for the results.", flag_values=FLAGS)
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
    [bench] = arguments
    for name, benches in TAKEN_BY.items():
        if values[name].present and bench not in benches:
            takes = ", ".join(f"--{flag}" for flag, by in TAKEN_BY.items() if bench in by)
            raise cli.UsageError(f"bench {bench} has no --{name}; it takes {takes}, --json")
    cli.start_keras()
    if bench == "networks":
        _networks(values)
    elif bench == "deploy":
        _deploy(values)
    else:
        _rows(bench, values)


def _rows(bench: str, values: flags.FlagValues) -> None:
    from benchmarks.machine import machine
    from benchmarks.rows import rows_table

    measure = importlib.import_module(f"benchmarks.{ROWS[bench]}").bench
    repeats = values.repeats or (3 if bench == "memory" else 7)
    rows = []
    found = {"bench": bench, "machine": machine(), "repeats": repeats}
    for row in measure(lambda case: all(word in case for word in values.only), repeats, _say):
        rows.append(row)
        _say(rows_table([row]).splitlines()[-1])
        # Now, for a long bench that is stopped has measured something.
        facts = [dataclasses.asdict(row) | {"verdict": row.verdict} for row in rows]
        _write(values.json, found | {"rows": facts})
    if not rows:
        raise cli.UsageError(f"no case of bench {bench} has --only={','.join(values.only)}")
    of = found["machine"]
    print(f"\n{rows_table(rows)}\n{of['cpu']}, {of['cores']} cores")


def _say(line: str) -> None:
    print(line, flush=True)


def _networks(values: flags.FlagValues) -> None:
    from benchmarks import networks as bench

    known = bench.network_names()
    _check_names(values.networks, known)
    results = bench.bench_networks(values.networks or known, _say)
    print(f"\n{bench.networks_table(results)}")
    _write(values.json, results)
    failed = [result["network"] for result in results if not result.get("bit_exact")]
    print(f"{len(results) - len(failed)} of {len(results)} networks: bit-exact and exported.")
    if failed:
        raise RuntimeError(f"the promises do not hold for {', '.join(failed)}")


def _deploy(values: flags.FlagValues) -> None:
    from benchmarks import deploy as bench
    from benchmarks.networks import network_names
    from benchmarks.trunks import DARKNET

    names = values.networks or list(bench.NETWORKS)
    _check_names(names, network_names(), DARKNET)
    if values.trunk is not None and DARKNET not in names:
        raise cli.UsageError(
            f"--trunk is the file of {DARKNET}, which is not among --networks; add it there"
        )
    if values.trunk is None and values.trunk_output is not None:
        raise cli.UsageError("--trunk_output is a layer of the file --trunk, which is missing")
    if values.trunk is not None and not pathlib.Path(values.trunk).exists():
        raise cli.UsageError(f"there is no file --trunk={values.trunk}; name a .keras model")
    found = bench.bench_deploy(
        names,
        image_size=values.image_size,
        tasks=values.tasks,
        rounds=values.repeats or 3,
        threads=values.threads,
        trunk=values.trunk,
        trunk_output=values.trunk_output,
        progress=_say,
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
