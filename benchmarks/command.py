"""What all benchmarks share: the flags, the table at the end, and processes of their own."""

import argparse
import concurrent.futures
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Iterable, Mapping

from benchmarks.rows import Row, rows_table, summary
from packnet_tf.apps import cli

PACKAGES = ("packnet_tf", "keras", "tensorflow", "onnx", "onnxruntime", "numpy")


def run(cases: Mapping[str, object], measure: Callable[..., Iterable[Row]], repeats: int) -> None:
    """Runs the benchmark whose module is the main one, as its flags ask for.

    Args:
        cases: what can be measured, by name.
        measure: called with a case and how many turns to take; gives its rows.
        repeats: how many turns without `--repeats`.
    """
    main = sys.modules["__main__"]
    parser = argparse.ArgumentParser(
        prog=f"python -m {main.__spec__.name}",
        description=main.__doc__,
        epilog="cases:\n  " + "\n  ".join(cases),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = parser.add_argument
    flag("--only", default="", metavar="WORD,WORD", help="only cases with all of these words")
    flag("--repeats", type=int, default=repeats, metavar="N", help=f"turns; {repeats} if left out")
    flag("--json", type=pathlib.Path, metavar="FILE", help="keep rows, machine and versions there")
    flags = parser.parse_args()
    wanted = [name for name in cases if all(word in name for word in flags.only.split(","))]
    if not wanted:
        parser.error(f"no case has all words of --only={flags.only}")
    if flags.repeats < 1:
        parser.error(f"--repeats={flags.repeats} is below 1")
    rows, about = [], machine()
    try:
        for name in wanted:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            rows += [(name, row) for row in measure(cases[name], flags.repeats)]
    finally:  # an hour's rows are not lost with the last case
        if rows:
            print(f"{rows_table(rows)}\n\n{summary(row for _, row in rows)}")
            versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
            print(f"{about['cpu']}, {about['cores']} cores; {versions}")
        if rows and flags.json:
            facts = [{"case": case, **dataclasses.asdict(row)} for case, row in rows]
            found = {"bench": parser.prog, "machine": about, "repeats": flags.repeats}
            text = json.dumps({**found, "rows": facts}, indent=2)
            flags.json.write_text(f"{text}\n", encoding="utf-8")


def machine() -> dict:
    """What is measured on: `cpu`, `cores` (of this process), `system` and `versions`."""
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    found = importlib.metadata.distributions()
    installed = {x.name.replace("-", "_").removesuffix("_gpu"): x.version for x in found}
    versions = {name: installed[name] for name in PACKAGES if name in installed}
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), **versions},
    }


def worker(start: Callable[[], None] | None = None) -> concurrent.futures.Executor:
    """One new process, to be given calls; `start` is the first."""
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, initializer=start)


def in_process(function: Callable, *arguments):
    """Calls a function in a new process with Keras: nothing is warm, and memory is returned."""
    with worker(cli.start_keras) as process:
        return process.submit(function, *arguments).result()
