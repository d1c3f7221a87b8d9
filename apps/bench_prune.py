"""What pruning one large layer costs."""

import resource
import statistics
import threading
import time

import keras
import numpy as np

import packnet_tf
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
        with _PeakMemory() as memory:
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


class _PeakMemory:
    """How far the resident memory of the process rises in a block, sampled every 5 ms."""

    def __enter__(self):
        self._stop = threading.Event()
        self._base = self._peak = _resident()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()
        self.grown = self._peak - self._base


def _resident() -> int:
    """Bytes of resident memory now (Linux), or the most so far (elsewhere)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
