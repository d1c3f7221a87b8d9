"""`packnet bench memory`: the memory that training takes, packed and plain."""

import contextlib
import ctypes
import dataclasses
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.memory_counters import Allocator, Resident
from benchmarks.processes import in_process
from benchmarks.rows import Row, counted
from packnet_tf.apps import cli

STEPS = 3
PER_WEIGHT = 4 + 2  # bytes: one more float32 copy, an owner and a claim


def with_momentum() -> list[Case]:
    """Graph mode and XLA with momentum: what else an optimizer keeps, both sides have."""
    some = cases.all_cases()
    return [case for case in some if case.mode != "mixed_bfloat16" and case.optimizer == "SGD"]


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Trains each case in fresh processes, packed and plain in turns.

    Raises:
        RuntimeError: neither TensorFlow nor the system tells how much memory it takes.
    """
    for case in cases.wanted(with_momentum(), lambda case: case.title, only, say):
        found = {"plain": [], "packed": []}
        for _ in range(turns):
            for side, all_of_it in found.items():
                options = json.dumps([dataclasses.asdict(case), side])
                all_of_it.append(in_process("benchmarks.memory", options))
        weights = found["packed"][0]["packed_weights"]
        for what in ("peak", "kept"):
            taken = {
                side: statistics.median(one[what] for one in all_of_it)
                for side, all_of_it in found.items()
            }
            more = taken["packed"] - taken["plain"]
            counter = found["packed"][0]["counter"]
            yield counted(
                case.title, f"{what}, packed", taken["packed"], "bytes", "plain", taken["plain"],
                note=f"by {counter}",
            )  # fmt: skip
            yield counted(
                case.title, f"{what}, more", more, "bytes", "one copy + 2 bytes",
                PER_WEIGHT * weights, 1.0, f"{more / weights:.1f} bytes a weight",
            )  # fmt: skip


def measure(case: Case, side: str) -> dict:
    """What some training steps take, in bytes: at most (`peak`) and after them (`kept`)."""
    import keras

    keras.utils.set_random_seed(1)
    small = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    small.compile("sgd", "mse", jit_compile=cases.by_xla(case))
    small.fit(keras.ops.ones((2, 2)), keras.ops.ones((2, 1)), verbose=0)  # wakes TensorFlow up
    return_freed()
    counter = Allocator.of_device() or Resident()
    model = cases.packed_model(case, 0) if side == "packed" else cases.plain_model(case)
    cases.compile_model(model, case)
    batch = cases.random_batch(case)
    return_freed()
    counter.restart()
    cases.fit_steps(model, batch, STEPS)
    peak = counter.peak()
    return_freed()
    facts = {"peak": peak, "kept": counter.now(), "counter": counter.name}
    if side == "packed":
        facts["packed_weights"] = model.pack.capacity().sum()["total"]
    return facts


def return_freed() -> None:
    """Gives memory that is free back to the system, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    cli.start_keras()
    case, side = json.loads(sys.argv[1])
    print(json.dumps(measure(Case(**case), side)))
