"""What deploying the tasks of a pack costs, beside other ways: bytes, loading, memory, latency."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence

from benchmarks.machine import machine
from benchmarks.processes import in_process
from benchmarks.session import SessionProcess
from benchmarks.trunks import DARKNET, SIZES
from packnet_tf.reporting.tables import count_bytes, text_table

NETWORKS = (DARKNET, "MobileNetV2", "ResNet50", "VGG16")
CASES = ("never packed", "baked", "bundle", "float16", "int8")
# What the latency of each case is divided by, in the same turn.
BASES = {"baked": "never packed", "bundle": "baked", "float16": "baked", "int8": "baked"}
BATCHES = (1, 32)
TURN = 0.1  # seconds of runs before the next case has its turn
TURNS = 30  # at most, per round
BUDGET = 8.0  # seconds, for the turns of all cases in a round


def bench_deploy(
    names: Sequence[str],
    *,
    image_size: int | None = None,
    tasks: int = 4,
    rounds: int = 3,
    threads: int = 0,
    trunk: str | None = None,
    trunk_output: str | None = None,
    progress=print,
) -> dict:
    """Packs random tasks into networks, exports them in every way, and runs the last task's files.

    A network is packed and exported in a process of its own, and each file runs in one without
    Keras. In a round each case is loaded anew; then the cases take turns of a tenth of a second,
    A B C A B C, so that what else the machine does meets all of them.

    Args:
        names: "TinyDarknet", or networks of keras.applications.
        image_size: height and width in pixels; default 96 for TinyDarknet, 224 for the others.
        tasks: how many share the trunk equally.
        rounds: how often to load, and to run in turns.
        threads: that onnxruntime calculates with; 0 for as many as it takes by itself.
        trunk: for TinyDarknet, a `.keras` file; without it weights are random.
        trunk_output: of that file, the layer to end at.
        progress: called with lines.

    Returns:
        A dict: `machine`, `threads`, and `networks`, a list of dicts: `network`,
        `image_size`, `tasks`, `rounds`, `parameters`, `packed_parameters`, `bytes` (see
        `deploy_files.export_every_way`), and `cases`, by case: `load_seconds`, `resident` and
        `load_peak` in bytes, and `latency`, by batch: `median_ms`, `p90_ms` and `best_ms`
        of all runs, and `ratio`, the median of the turns' ratios to the case that it is compared
        with (see `BASES`). A case that failed has `error` only, and a network
        that failed `network` and `error`.
    """
    results = []
    for name in names:
        size = image_size or SIZES.get(name, 224)
        options = {"image_size": size, "tasks": tasks}
        if name == DARKNET:
            options |= {"trunk": trunk, "trunk_output": trunk_output}
        began = time.perf_counter()

        def say(line, name=name, began=began):
            progress(f"{name}, {time.perf_counter() - began:.0f} s: {line}")

        with tempfile.TemporaryDirectory() as folder:
            try:
                exported = _exported(name, folder, options, say)
                cases = run_cases(exported["files"], rounds, threads, say)
            except RuntimeError as error:
                say(f"FAILED: {error}")
                results.append({"network": name, "error": str(error)})
                continue
        cases |= {case: {"error": text} for case, text in exported["errors"].items()}
        results.append(
            {
                "network": name,
                "image_size": size,
                "tasks": tasks,
                "rounds": rounds,
                **{key: exported[key] for key in ("parameters", "packed_parameters", "bytes")},
                "cases": {case: cases[case] for case in CASES},
            }
        )
    return {"machine": machine(), "threads": threads, "networks": results}


def _exported(name: str, folder: str, options: Mapping, say) -> dict:
    """Has another process pack and export a network, so that its memory is returned."""
    flags = [f"--{key}={value}" for key, value in options.items() if value is not None]
    return in_process("benchmarks.deploy_files", name, folder, *flags, say=say)


def run_cases(files: Mapping[str, str], rounds: int, threads: int, progress=print) -> dict:
    """Loads and runs files side by side.

    Args:
        files: `.onnx` files by case.
        rounds, threads, progress: as for `bench_deploy`.

    Returns:
        By case what was found, as `bench_deploy` says.

    Raises:
        RuntimeError: a file cannot be loaded or run.
    """
    loads = {case: [] for case in files}
    turns = {batch: [] for batch in BATCHES}
    for number in range(1, rounds + 1):
        with contextlib.ExitStack() as stack:
            processes = {}
            for case, path in files.items():
                processes[case] = stack.enter_context(SessionProcess(path, threads))
                loads[case].append(processes[case].loaded)
            for batch in BATCHES:
                turns[batch] += _in_turns(processes, batch)
        so_far = {case: latency(turns[BATCHES[0]], case)["median_ms"] for case in files}
        said = (f"{case} {milliseconds:.2f} ms" for case, milliseconds in so_far.items())
        progress(f"round {number} of {rounds}: {', '.join(said)}")
    return {
        case: {
            **{key: _median([load[key] for load in loads[case]]) for key in loads[case][0]},
            "latency": {str(batch): latency(turns[batch], case) for batch in BATCHES},
        }
        for case in files
    }


def _in_turns(processes: Mapping[str, SessionProcess], batch: int) -> list[dict[str, list[float]]]:
    """Turns of all cases: of each, by case, the milliseconds of its runs."""
    for process in processes.values():
        process.run(batch, 0)  # the first one in a process is of another kind
    turns, began = [], time.perf_counter()
    while not turns or (len(turns) < TURNS and time.perf_counter() - began < BUDGET):
        turns.append({case: process.run(batch, TURN) for case, process in processes.items()})
    return turns


def latency(turns: Sequence[Mapping[str, Sequence[float]]], case: str) -> dict:
    """Sums up the times of one case.

    Args:
        turns: of each, by case, the milliseconds of its runs.
        case: the one to sum up; it is compared with `BASES[case]` where that was run.

    Returns:
        A dict: `median_ms`, `p90_ms`, `best_ms`, and `ratio`, None where there is none. On a busy
        machine the ratio holds best: what was run within a second of each other is compared.

    Example:
        >>> latency([{"baked": [2.0, 2.0], "bundle": [3.0, 5.0]}], "bundle")
        {'median_ms': 4.0, 'p90_ms': 5.0, 'best_ms': 3.0, 'ratio': 2.0}
    """
    every = sorted(ms for turn in turns for ms in turn[case])
    ratios = [
        statistics.median(turn[case]) / statistics.median(turn[BASES[case]])
        for turn in turns
        if BASES.get(case) in turn
    ]
    return {
        "median_ms": statistics.median(every),
        "p90_ms": every[9 * len(every) // 10],
        "best_ms": every[0],
        "ratio": statistics.median(ratios) if ratios else None,
    }


def _median(values: Sequence[float | None]) -> float | None:
    return None if None in values else statistics.median(values)


def deploy_table(found: dict) -> str:
    """Lays out what `bench_deploy` found: bytes, then the cases, then errors."""
    good = [result for result in found["networks"] if "error" not in result]
    errors = [
        f"{result['network']}: {result['error']}"
        for result in found["networks"]
        if "error" in result
    ]
    errors += [
        f"{result['network']}, {case}: {facts['error']}"
        for result in good
        for case, facts in result["cases"].items()
        if "error" in facts
    ]
    sizes = text_table(
        ["", *(_title(result) for result in good)],
        [[text, *(_size(result["bytes"], key) for result in good)] for text, key in SIZE_ROWS],
    )
    heads = ["network", "case", "load", "resident", "load peak"]
    for batch in BATCHES:
        heads += [f"batch {batch}", "p90", "ratio"]
    cases = text_table(
        heads,
        [
            [_title(result), case, *_cells(facts)]
            for result in good
            for case, facts in result["cases"].items()
        ],
    )
    of = found["machine"]
    about = f"{of['cpu']}, {of['cores']} cores, onnxruntime {of['versions']['onnxruntime']}"
    return "\n".join([sizes, "", cases, *errors, about])


# A row's title, and its key in `bytes`; "/ KEY": in files of the last task as it is baked.
SIZE_ROWS = (
    ("one baked file", "baked_one"),
    ("all baked files", "baked"),
    ("  / one baked", "/ baked"),
    ("bundle", "bundle"),
    ("  / one baked", "/ bundle"),
    ("  its graphs, heads and norms", "graphs"),
    ("  shared.data", "shared"),
    ("    / one baked", "/ shared"),
    ("one float16 file", "float16"),
    ("  / one baked", "/ float16"),
    ("one int8 file", "int8"),
    ("  / one baked", "/ int8"),
    ("one never packed", "never_packed"),
    ("pack.keras", "pack"),
    ("  / one baked", "/ pack"),
)


def _size(sizes: Mapping[str, int], key: str) -> str:
    if key.startswith("/ "):
        return f"{sizes[key[2:]] / sizes['baked_one']:.3f}"
    return count_bytes(sizes[key]) if key in sizes else "none"


def _title(result: dict) -> str:
    return f"{result['network']} {result['image_size']} px"


def _cells(facts: dict) -> list[str]:
    if "error" in facts:
        return ["FAILED", *[""] * (2 + 3 * len(BATCHES))]
    cells = [f"{1000 * facts['load_seconds']:.0f} ms"]
    cells += [
        "?" if facts[key] is None else count_bytes(facts[key]) for key in ("resident", "load_peak")
    ]
    for batch in BATCHES:
        times = facts["latency"][str(batch)]
        cells += [f"{times[key]:.2f} ms" for key in ("median_ms", "p90_ms")]
        cells.append("" if times["ratio"] is None else f"{times['ratio']:.2f}")
    return cells
