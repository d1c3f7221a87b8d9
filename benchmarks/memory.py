"""Memory of training, packed and plain.

TensorFlow's allocator counts the bytes, on a GPU or on a CPU with oneDNN: the peak during three
steps, and the bytes in use after them. Resident memory would be larger, because allocators keep
freed memory.
"""

import gc
import statistics

from benchmarks.command import in_process, run
from benchmarks.networks import Case, fit_steps
from benchmarks.rows import Row, counted
from benchmarks.train import CASES as TRAINED

# SGD is enough: the further variables of Adam are the same on both sides.
CASES = {
    title: case
    for title, case in TRAINED.items()
    if case.mode != "mixed_bfloat16" and case.optimizer == "SGD"
}
PER_WEIGHT = 4 + 2  # bytes: one more float32 copy, an owner and a claim


def measure(case: Case, turns: int) -> list[Row]:
    """Measures a case, trained in new processes, packed and plain in turns."""
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
    """Trains some steps; returns bytes at the `peak` and after them (`kept`), and `weights`."""
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
