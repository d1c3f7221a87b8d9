"""Runs one exported file in this process as a device would, with onnxruntime and NumPy.

Imports neither Keras nor TensorFlow, so that they do not count as memory of the file.
"""

import time

from benchmarks.process_memory import memory, restart_peak
from benchmarks.rows import seconds_of

_session = None  # the session of this process


def load(path: str) -> dict[str, float]:
    """Loads a file, and measures that.

    Returns:
        `seconds`, and two increases of memory in bytes: `resident`, the process's own memory after
        loading, and `load peak`, the peak of all memory while loading.
    """
    global _session
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    restart_peak()
    before, began = memory(), time.perf_counter()
    _session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds, after = time.perf_counter() - began, memory()
    return {
        "seconds": seconds,
        "resident": after.own - before.own,
        "load peak": after.peak - before.resident,
    }


def time_runs(batch: int, seconds: float) -> list[float]:
    """Runs a batch once, and again until the sum of the times reaches `seconds`; returns times."""
    import numpy as np

    [entry] = _session.get_inputs()
    feed = {entry.name: np.random.default_rng(0).random((batch, *entry.shape[1:]), np.float32)}
    times = []
    while not times or sum(times) < seconds:
        times.append(seconds_of(lambda: _session.run(None, feed)))
    return times
