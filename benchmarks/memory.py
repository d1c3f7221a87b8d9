"""The memory that training takes, packed and plain.

Counted by TensorFlow's allocator on the GPU, or on a CPU with oneDNN, at most during three steps
and after them. What a process has resident is more: allocators keep what was freed.
"""

import gc
import statistics

from benchmarks.command import in_process, run
from benchmarks.networks import Case, fit_steps
from benchmarks.rows import Row, counted
from benchmarks.train import CASES as TRAINED

# What else an optimizer keeps, both sides have.
CASES = {
    title: case
    for title, case in TRAINED.items()
    if case.mode != "mixed_bfloat16" and case.optimizer == "SGD"
}
PER_WEIGHT = 4 + 2  # bytes: one more float32 copy, an owner and a claim


def measure(case: Case, turns: int) -> list[Row]:
    """The rows of a case, trained in new processes, packed and plain in turns."""
    found = {"plain": [], "packed": []}
    for _ in range(turns):
        for side, facts in found.items():
            facts.append(in_process(train, case, side))
    weights = found["packed"][0]["weights"]
    rows = []
    for what in ("peak", "kept"):
        plain, ours = (statistics.median(one[what] for one in facts) for facts in found.values())
        more, floor = ours - plain, PER_WEIGHT * weights
        note = f"{more / weights:.1f} bytes a weight"
        rows.append(counted(f"{what}, packed", ours, "bytes", "plain", plain))
        rows.append(counted(f"{what}, more", more, "bytes", "one copy + 2 bytes", floor, 1.0, note))
    return rows


def train(case: Case, side: str) -> dict[str, int]:
    """Bytes that some training steps take, at most (`peak`) and after them (`kept`); `weights`."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    model, batch = case.model(0 if side == "packed" else None), case.random_batch()
    gc.collect()
    tf.config.experimental.reset_memory_stats(device)
    fit_steps(model, batch, 3)
    peak = tf.config.experimental.get_memory_info(device)["peak"]
    gc.collect()
    kept = tf.config.experimental.get_memory_info(device)["current"]
    weights = model.pack.capacity().sum()["total"] if side == "packed" else model.count_params()
    return {"peak": peak, "kept": kept, "weights": weights}


if __name__ == "__main__":
    run(CASES, measure, repeats=3)
