"""`packnet bench memory`: the most memory that training takes, packed and plain."""

import contextlib
import ctypes
import dataclasses
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator

from packnet_tf.apps import cli
from packnet_tf.apps.benches import cases
from packnet_tf.apps.benches.cases import Case
from packnet_tf.apps.benches.processes import in_process
from packnet_tf.apps.benches.rows import Row, counted
from packnet_tf.apps.memory import memory, restart_peak

STEPS = 3
PER_WEIGHT = 4 + 2  # bytes: one more float32 copy, an owner and a claim


def with_momentum() -> list[Case]:
    """Graph mode and XLA with momentum: what else an optimizer keeps, both sides have."""
    some = cases.all_cases()
    return [case for case in some if case.mode != "mixed_bfloat16" and case.optimizer == "SGD"]


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Trains each case in fresh processes, packed and plain in turns.

    Raises:
        RuntimeError: the system does not tell how much memory a process takes.
    """
    if memory() is None:
        raise RuntimeError("the memory of a process can be measured on Linux only")
    for case in cases.wanted(with_momentum(), lambda case: case.title, only, say):
        found = {"plain": [], "packed": []}
        for _ in range(turns):
            for side, all_of_it in found.items():
                options = json.dumps([dataclasses.asdict(case), side])
                all_of_it.append(in_process("packnet_tf.apps.benches.memory", options))
        peaks = {
            side: statistics.median(one["peak"] for one in all_of_it)
            for side, all_of_it in found.items()
        }
        weights = found["packed"][0]["packed_weights"]
        allowed = PER_WEIGHT * weights
        more = peaks["packed"] - peaks["plain"]
        yield counted(case.title, "packed", peaks["packed"], "bytes", "plain", peaks["plain"])
        note = f"{more / weights:.1f} bytes a weight"
        yield counted(
            case.title, "more than plain", more, "bytes", "one copy + 2 bytes", allowed, 1.0, note
        )


def measure(case: Case, side: str) -> dict:
    """The most memory of some training steps, `peak` in bytes beyond what TensorFlow takes."""
    import keras

    keras.utils.set_random_seed(1)
    small = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    small.compile("sgd", "mse", jit_compile=case.mode == "XLA")
    small.fit(keras.ops.ones((2, 2)), keras.ops.ones((2, 1)), verbose=0)  # wakes TensorFlow up
    base = memory().resident
    model = cases.packed_model(case, 0) if side == "packed" else cases.plain_model(case)
    cases.compile_model(model, case)
    batch = cases.random_batch(case)
    return_freed()
    restart_peak()
    cases.fit_steps(model, batch, STEPS)
    facts = {"peak": memory().peak - base}
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
