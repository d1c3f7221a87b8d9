"""What pruning one large layer costs."""

import statistics
import time

import keras
import numpy as np

import packnet_tf
from packnet_tf.apps.memory import PeakMemory
from packnet_tf.tables import text_table


def bench_prune(inputs: int, units: int, repeats: int) -> str:
    """Times `net.prune(0.5)` of one Dense layer beside one `numpy.partition` of its weights."""
    trunk = keras.Sequential(
        [keras.Input((inputs,)), keras.layers.Dense(units, use_bias=False)], name="trunk"
    )
    net = packnet_tf.PackNet(trunk)
    del trunk
    layer_bytes = 4 * inputs * units
    rows, seconds = [], {"prune": [], "partition": []}
    for turn in range(repeats):
        net.add_task(f"task{turn}", keras.layers.Dense(2))
        weights = keras.ops.convert_to_numpy(net.open_model.trainable_variables[0]).reshape(-1)
        began = time.perf_counter()
        np.partition(np.abs(weights), weights.size // 2)
        seconds["partition"].append(time.perf_counter() - began)
        del weights
        with PeakMemory() as memory:
            began = time.perf_counter()
            released = sum(net.prune(0.5).values())
            seconds["prune"].append(time.perf_counter() - began)
        net.discard()
        rows.append(
            [
                f"{inputs} x {units}, run {turn + 1}",
                f"{released:,}",
                f"{seconds['prune'][-1]:.2f} s",
                f"{seconds['partition'][-1]:.2f} s",
                f"{seconds['prune'][-1] / seconds['partition'][-1]:.2f}",
                f"{memory.grown / layer_bytes:.2f}",
            ]
        )
    head = ["layer", "released", "prune", "numpy.partition", "ratio", "peak memory / layer"]
    middle = statistics.median(seconds["prune"])
    return f"{text_table(head, rows)}\nMedian of {repeats}: {middle:.2f} s."
