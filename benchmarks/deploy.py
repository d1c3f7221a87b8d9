"""Size, load time, memory and latency of exported files in every form, for four packed tasks.

Each file runs in its own process without Keras.
  never packed   the network with one head, by Keras's exporter
  baked          a file of `export_all`
  bundle         a graph of `export_bundle`, which reads the weights that all tasks share
  float16, int8  a file of `export_all(precision=...)`, int8 calibrated on random images
  int8 bundle    a graph of `export_bundle(precision="int8", calibration=...)`
"""

import contextlib
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks import onnx_session
from benchmarks.command import in_process, run, worker
from benchmarks.networks import CLASSES, build_trunk, packed, sized
from benchmarks.rows import Row, counted, timed

CASES = sized(TinyDarknet=96, MobileNetV2=224, ResNet50=224, VGG16=96)
TASKS = 4
# The form that each form is compared with, in the same turn.
AGAINST = {"baked": "never packed", "bundle": "baked", "float16": "baked", "int8": "baked"}
AGAINST |= {"int8 bundle": "int8"}
GOALS = {"baked": 1.02, "bundle": 1.02, "int8 bundle": 1.02}
BATCHES = (1, 32)
TURN = 0.1  # seconds of runs in one turn of a form
TURNS = 30  # maximum number of turns in one repeat
BUDGET = 8.0  # seconds for the turns of one repeat


def measure(case: tuple[str, int], repeats: int) -> list[Row]:
    """Measures a network; each repeat loads the files anew."""
    with tempfile.TemporaryDirectory() as folder:
        sizes, files = in_process(export_every_way, case, folder)
        loads, latencies = run_in_turns(files, repeats)
    one = sizes.pop("one baked")
    rows = [counted(what, size, "bytes", "one baked", one) for what, size in sizes.items()]
    for form, base in AGAINST.items():
        named = {f"{side}, load": [x["seconds"] for x in loads[side]] for side in (form, base)}
        rows.append(timed(named, *named))
        for what in ("resident", "load peak"):
            ours, theirs = (statistics.median(x[what] for x in loads[y]) for y in (form, base))
            rows.append(counted(f"{form}, {what}", ours, "bytes", f"{base}, {what}", theirs))
        for batch, times in latencies.items():
            named = {f"{side}, batch {batch}": times[side] for side in (form, base)}
            rows.append(timed(named, *named, GOALS.get(form)))
    return rows


def export_every_way(case: tuple[str, int], folder: str) -> tuple[dict[str, int], dict[str, str]]:
    """Packs tasks into a trunk and exports them.

    Returns:
        Sizes in bytes by kind of file, and paths of the last task's files by form.
    """
    import keras

    from packnet_tf.export import export_all, export_bundle

    keras.utils.set_random_seed(1)
    trunk, where = build_trunk(*case), pathlib.Path(folder)
    files = {"never packed": where / "never_packed.onnx"}
    alone = keras.Model(trunk.input, keras.layers.Dense(CLASSES)(trunk.output))
    images = np.random.default_rng(0).random((32, *trunk.input_shape[1:]), dtype=np.float32)
    alone(images[:1])  # Keras exports only models that have been called
    alone.export(str(files["never packed"]), format="onnx", verbose=False)
    net = packed(trunk, TASKS)
    net.save(where / "pack.keras")
    baked = export_all(net, where / "baked", verbose=False)
    bundle = export_bundle(net, where / "bundle", verbose=False)
    some = {"tasks": net.tasks[-1:], "verbose": False}
    export_all(net, where / "float16", precision="float16", **some)
    export_all(net, where / "int8", precision="int8", calibration=images, **some)
    integers = {"precision": "int8", "calibration": images, "verbose": False}
    int8_bundle = export_bundle(net, where / "int8 bundle", **integers)
    last = baked["tasks"][-1]
    files |= {form: where / form / last["file"] for form in AGAINST}
    single = {form: path for form, path in files.items() if not form.endswith("bundle")}
    sizes = {f"one {form}": path.stat().st_size for form, path in single.items()}
    sizes["all baked"] = sum(task["bytes"] for task in baked["tasks"])
    bundles = ("bundle", "its", bundle), ("int8 bundle", "int8 bundle's", int8_bundle)
    for kind, whose, manifest in bundles:
        own = sum(task["bytes"] for task in manifest["tasks"])
        shared = sum(file["bytes"] for file in manifest["shared"])
        sizes |= {kind: own + shared, f"{whose} graphs, heads and norms": own}
        sizes[f"{whose} shared.data"] = shared
    sizes["pack.keras"] = (where / "pack.keras").stat().st_size
    return sizes, {form: str(path) for form, path in files.items()}


def run_in_turns(files: dict[str, str], repeats: int) -> tuple[dict, dict]:
    """Loads and runs files in turns, each in its own process.

    Returns:
        The measurements of each load by form, see `onnx_session.load`, and the median seconds of
        a run in each turn, by batch size and form.
    """
    loads = {form: [] for form in files}
    times = {batch: {form: [] for form in files} for batch in BATCHES}
    for _ in range(repeats):
        with contextlib.ExitStack() as stack:
            processes = {form: stack.enter_context(worker()) for form in files}
            for form, process in processes.items():
                loads[form].append(process.submit(onnx_session.load, files[form]).result())
            for batch in BATCHES:
                for process in processes.values():
                    process.submit(onnx_session.time_runs, batch, 0).result()  # plans the memory
                began, turns = time.perf_counter(), 0
                while not turns or (turns < TURNS and time.perf_counter() - began < BUDGET):
                    turns += 1
                    for form, process in processes.items():
                        runs = process.submit(onnx_session.time_runs, batch, TURN).result()
                        times[batch][form].append(statistics.median(runs))
    return loads, times


if __name__ == "__main__":
    run(CASES, measure, repeats=3)
