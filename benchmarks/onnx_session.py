"""Runs exported files in this process as a device would, with onnxruntime and NumPy.

Imports neither Keras nor TensorFlow, so that they do not count as memory of the file.
"""

import time

from benchmarks.process_memory import memory, restart_peak
from benchmarks.rows import seconds_of

_sessions = []  # the sessions of this process
_asked = {}  # the input of a multitask file that says which tasks are to answer
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
    seconds, after = time.perf_counter() - began, memory()
    return {
        "seconds": seconds,
        "resident": after.own - _before.own,
        "load peak": after.peak - _before.resident,
    }


def resident() -> float:
    """Returns the increase of this process's own memory since before `load`, in bytes."""
    return memory().own - _before.own


def ask(tasks: list[bool] | None) -> None:
    """Chooses the tasks of a multitask file that are to answer; None for all."""
    import numpy as np

    if tasks is not None:
        _asked["tasks"] = np.array(tasks)


def time_runs(batch: int, seconds: float) -> list[float]:
    """Runs a batch once, and again until the sum of the times reaches `seconds`; returns times."""
    import numpy as np

    [entry] = _sessions[0].get_inputs()
    feed = {entry.name: np.random.default_rng(0).random((batch, *entry.shape[1:]), np.float32)}
    feed |= _asked
    times = []
    while not times or sum(times) < seconds:
        times.append(seconds_of(lambda: [opened.run(None, feed) for opened in _sessions]))
    return times
