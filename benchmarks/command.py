"""Shared by all benchmarks: the flags, the table of results, and worker processes."""

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
import types
from collections.abc import Callable, Iterable, Mapping

from benchmarks.rows import Row, rows_table, summary
from packnet_tf.apps import cli

PACKAGES = ("packnet_tf", "keras", "tensorflow", "onnx", "onnxruntime", "numpy")


def run(cases: Mapping[str, object], measure: Callable[..., Iterable[Row]], repeats: int) -> None:
    """Runs the benchmark whose module is `__main__`, with the flags of the command line.

    Args:
        cases: cases to measure, by name.
        measure: function from a case and a number of turns to the rows of the case.
        repeats: default of `--repeats`, the number of turns.
    """
    main = sys.modules["__main__"]
    flags, wanted = read_flags(main, cases, repeats)
    rows, about = [], machine()
    try:
        for name in wanted:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            rows += [(name, row) for row in measure(cases[name], flags.repeats)]
    finally:  # keep an hour's rows if the last case fails
        if rows:
            print(f"{rows_table(rows)}\n\n{summary(row for _, row in rows)}")
            versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
            print(f"{about['cpu']}, {about['cores']} cores; {versions}")
        if rows and flags.json:
            facts = [{"case": case, **dataclasses.asdict(row)} for case, row in rows]
            found = {"bench": program(main), "machine": about, "repeats": flags.repeats}
            text = json.dumps({**found, "rows": facts}, indent=2)
            flags.json.write_text(f"{text}\n", encoding="utf-8")


def trunk_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of a benchmark of a user's trunk and tasks, with the flags they share.

    Args:
        name: of the benchmark's module.
        description: what `--help` says of it.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = parser.add_argument
    flag("--data", type=pathlib.Path, required=True, metavar="DIR",
         help="folder with a folder of images for each task")  # fmt: skip
    flag("--trunk", required=True, help="as for packnet train")
    flag("--trunk_output", help="as for packnet train")
    flag("--image_size", type=int, help="as for packnet train")
    flag("--json", type=pathlib.Path, metavar="FILE", help="file for the results")
    return parser


def program(main: types.ModuleType) -> str:
    return f"python -m {main.__spec__.name}"


def read_flags(
    main: types.ModuleType,
    cases: Mapping[str, object],
    repeats: int,
    arguments: list[str] | None = None,
) -> tuple[argparse.Namespace, list[str]]:
    """Returns the flags of a benchmark, and the names of the cases that they choose.

    Args:
        main: module of the benchmark.
        cases, repeats: as for `run`.
        arguments: arguments of the command line; default those of the process.

    Raises:
        SystemExit: a flag is unknown or invalid.
    """
    parser = argparse.ArgumentParser(
        prog=program(main),
        description=main.__doc__,
        epilog="cases:\n  " + "\n  ".join(cases),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = parser.add_argument
    flag("--only", default="", metavar="WORD,WORD", help="only cases with all these words")
    flag("--repeats", type=int, default=repeats, metavar="N", help=f"turns; default {repeats}")
    flag("--json", type=pathlib.Path, metavar="FILE", help="file for rows, machine and versions")
    flags = parser.parse_args(arguments)
    wanted = [name for name in cases if all(word in name for word in flags.only.split(","))]
    if not wanted:
        parser.error(f"no case has all words of --only={flags.only}")
    if flags.repeats < 1:
        parser.error(f"--repeats={flags.repeats} is below 1")
    return flags, wanted


def machine() -> dict:
    """Describes the machine: `cpu`, `cores` (of this process), `system` and `versions`."""
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
    """Returns an executor with one new process, whose first call is `start`."""
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, initializer=start)


def in_process(function: Callable, *arguments):
    """Calls a function in a new process with Keras: no cache is warm, and all memory is freed."""
    with worker(cli.start_keras) as process:
        return process.submit(function, *arguments).result()
