"""Time and memory of one file for five tasks, against a file of one task, and against five files.

  one task      a file of `export_all`
  five files    those of five tasks in one process, run one after the other
  multitask     the file of `export_multitask` for all five
  one of five   the same file, asked for a single task
int8 files are calibrated on random images. Each form runs in its own process without Keras, on one
thread: those of several sessions would wait for each other.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile

import numpy as np

from benchmarks import onnx_session
from benchmarks.command import in_process, run, worker
from benchmarks.networks import build_trunk, packed
from benchmarks.rows import Row, counted, timed

TASKS = 5
# A network, the size of its images in pixels, and the last layer of its stem.
CASES = {
    "MobileNetV2 96 px": ("MobileNetV2", 96, None),
    "MobileNetV2 96 px, stem": ("MobileNetV2", 96, "block_12_add"),
    "MobileNetV2 224 px, stem": ("MobileNetV2", 224, "block_12_add"),
    "TinyDarknet 96 px, stem": ("TinyDarknet", 96, "max_pooling2d_3"),
}
PRECISIONS = ("float32", "int8")
BASE = "one task"
FORMS = ("five files", "multitask", "one of five")
PASSES, MEMORY = 2.3, 1.5  # goals of the multitask file with a stem
TURN = 0.1  # seconds of runs in one turn of a form
TURNS = 20  # turns in one repeat


def measure(case: tuple[str, int, str | None], repeats: int) -> list[Row]:
    """Measures a network; each repeat loads the files anew."""
    passes, most = (PASSES, MEMORY) if case[2] is not None else (None, None)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for precision, files in in_process(export, case, folder).items():
            loads, times = run_in_turns(files, repeats)
            base, times = f"{precision}, {BASE}", {f"{precision}, {x}": times[x] for x in times}
            resident = {form: statistics.median(found) for form, found in loads.items()}
            size = {form: sum(os.path.getsize(path) for path in files[form]) for form in files}
            for form in FORMS:
                goal = passes if form == "multitask" else None
                rows.append(timed(times, f"{precision}, {form}", base, goal))
            for what, found, goal in (("resident", resident, most), ("size", size, None)):
                theirs = (f"{base}, {what}", found[BASE])
                for form in FORMS[:2]:
                    ours = (f"{precision}, {form}, {what}", found[form], "bytes")
                    rows.append(counted(*ours, *theirs, goal if form == "multitask" else None))
    return rows


def export(case: tuple[str, int, str | None], folder: str) -> dict[str, dict[str, list[str]]]:
    """Packs tasks into a trunk and exports them; returns paths by precision and form."""
    import keras

    from packnet_tf.export import export_all, export_multitask

    keras.utils.set_random_seed(1)
    name, pixels, stem = case
    net, found = packed(build_trunk(name, pixels), TASKS, stem=stem), {}
    images = np.random.default_rng(0).random((32, pixels, pixels, 3), dtype=np.float32)
    for precision in PRECISIONS:
        where = pathlib.Path(folder) / precision
        options = {"precision": precision, "verbose": False}
        if precision == "int8":
            options["calibration"] = images
        exported = export_all(net, where, **options)
        alone = [str(where / task["file"]) for task in exported["tasks"]]
        export_multitask(net, where / "all.onnx", **options)
        together = [str(where / "all.onnx")]
        files = (alone[:1], alone, together, together)
        found[precision] = dict(zip((BASE, *FORMS), files, strict=True))
    return found


def run_in_turns(files: dict[str, list[str]], repeats: int) -> tuple[dict, dict]:
    """Loads and runs files in turns, those of each form in a process of their own.

    Returns:
        The resident memory in bytes of each repeat, and the median seconds of a run in each turn,
        both by form.
    """
    loads: dict[str, list] = {form: [] for form in files}
    times: dict[str, list] = {form: [] for form in files}
    asked = dict.fromkeys(files) | {"one of five": [True] + [False] * (TASKS - 1)}
    for _ in range(repeats):
        with contextlib.ExitStack() as stack:
            processes = {form: stack.enter_context(worker()) for form in files}
            for form, process in processes.items():
                process.submit(onnx_session.load, *files[form], threads=1).result()
                process.submit(onnx_session.time_runs, 1, 0, asked[form]).result()  # plans memory
                loads[form].append(process.submit(onnx_session.resident).result())
            for _ in range(TURNS):
                for form, process in processes.items():
                    runs = process.submit(onnx_session.time_runs, 1, TURN, asked[form]).result()
                    times[form].append(statistics.median(runs))
    return loads, times


if __name__ == "__main__":
    run(CASES, measure, repeats=3)
