"""Runs exported files in this process as a device would, with onnxruntime and NumPy.

Imports neither Keras nor TensorFlow, so that they do not count as memory of the file.
"""

import time

from benchmarks.process_memory import memory, restart_peak
from benchmarks.rows import seconds_of

_sessions = []  # the sessions of this process
_before = None  # memory before loading


def load(*paths: str, threads: int = 0) -> dict[str, float]:
    """Loads files, and measures that.

    Args:
        paths: the files.
        threads: number of threads that compute one operator; 0 for onnxruntime's default.

    Returns:
        `seconds`, and two increases of memory in bytes: `resident`, the process's own memory after
        loading, and `load peak`, the peak of all memory while loading.
    """
    global _before
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    restart_peak()
    _before, began = memory(), time.perf_counter()
    for path in paths:
        opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        _sessions.append(opened)
    seconds, peak = time.perf_counter() - began, memory().peak
    return {"seconds": seconds, "resident": resident(), "load peak": peak - _before.resident}


def resident() -> float:
    """Returns the increase of this process's own memory since before `load`, in bytes."""
    return memory().own - _before.own


def time_runs(batch: int, seconds: float, tasks: list[bool] | None = None) -> list[float]:
    """Runs a batch once, and again until the sum of the times reaches `seconds`; returns times.

    Args:
        batch: the number of inputs.
        seconds: how long to run.
        tasks: of a multitask file, which tasks are to answer; None for all.
    """
    import numpy as np

    [entry] = _sessions[0].get_inputs()
    feed = {entry.name: np.random.default_rng(0).random((batch, *entry.shape[1:]), np.float32)}
    if tasks is not None:
        feed["tasks"] = np.array(tasks)
    times = []
    while not times or sum(times) < seconds:
        times.append(seconds_of(lambda: [opened.run(None, feed) for opened in _sessions]))
    return times
