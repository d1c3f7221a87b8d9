"""One exported file in a process, as a device would run it: onnxruntime and numpy.

Imports neither Keras nor TensorFlow, so that memory is that of the file.
"""

import time

from benchmarks.process_memory import memory, restart_peak
from benchmarks.rows import seconds_of

_session = None  # of this process


def load(path: str) -> dict[str, float]:
    """Loads the file; what that took.

    Returns:
        `seconds`, and in bytes, beyond what the process had before, `resident`, its own memory
        afterwards, and `load peak`, the most of all memory meanwhile.
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
    """Seconds of runs of a batch, one after another until their sum is enough; at least one."""
    import numpy as np

    [entry] = _session.get_inputs()
    feed = {entry.name: np.random.default_rng(0).random((batch, *entry.shape[1:]), np.float32)}
    times = []
    while not times or sum(times) < seconds:
        times.append(seconds_of(lambda: _session.run(None, feed)))
    return times
