"""Measures loading and running of an exported file, with onnxruntime and NumPy alone."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from packnet_tf.export.runtime.session import LENGTHS, session

STATUS = pathlib.Path("/proc/self/status")  # on Linux alone
WARM_UP = 0.1  # of the time for a batch size: first runs allocate memory
FEWEST_RUNS = 3
_DTYPES = {"float": "float32", "double": "float64"}  # where ONNX's name is not NumPy's


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of a run with one batch size.

    Attributes:
        batch: number of examples in a batch.
        runs: number of runs.
        median, p90: median and 90th percentile of a run's time, in milliseconds.
        per_second: examples per second over all runs.
    """

    batch: int
    runs: int
    median: float
    p90: float
    per_second: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """Measurements of a file.

    Attributes:
        load: time to load it, in milliseconds.
        memory: resident memory that loading and running add, in bytes; None if this system does
            not tell.
        latencies: a `Latency` per batch size.
    """

    load: float
    memory: int | None
    latencies: list[Latency]


def measure(
    path: str,
    batch_sizes: Sequence[int],
    seconds: float,
    provider: str = "cpu",
    threads: int = 0,
    image_size: int = 224,
) -> Timing:
    """Loads a file and runs it on random inputs.

    Memory is that of this process, so use a new process for every file.

    Args:
        path: a `.onnx` or `.ort` file.
        batch_sizes: numbers of examples in a batch. A file with a fixed batch size runs with that.
        seconds: how long to run for each batch size.
        provider, threads: as for `session`.
        image_size: height and width in pixels of images whose size the file leaves open.

    Raises:
        ValueError: the file does not run on random inputs.
    """
    import onnxruntime

    onnxruntime.SessionOptions()  # loads the library, which is not memory of the file
    before, began = resident_memory(), time.perf_counter()
    opened = session(path, provider, threads)
    load = time.perf_counter() - began
    entries = opened.get_inputs()
    fixed = {entry.shape[0] for entry in entries if entry.shape}
    sizes = [size for size in fixed if isinstance(size, int)] or batch_sizes
    latencies = []
    for batch in sizes:
        feed = _accepted_feed(opened, path, batch, image_size)
        latencies.append(_latency(lambda feed=feed: opened.run(None, feed), batch, seconds))
    after = resident_memory()
    memory = None if before is None or after is None else max(0, after - before)
    return Timing(1000 * load, memory, latencies)


def resident_memory() -> int | None:
    """Returns the resident memory of this process in bytes; None if the system is not Linux."""
    if not STATUS.exists():
        return None
    [line] = [x for x in STATUS.read_text(encoding="ascii").splitlines() if x.startswith("VmRSS:")]
    return 1024 * int(line.split()[1])


def random_feed(entries, batch: int, image_size: int, length: int) -> dict[str, np.ndarray]:
    """Returns random inputs for a session.

    uint8 is uniform in 0 to 255. Other integers are 0 or 1, which are valid indices of any
    embedding. Floats are uniform in 0 to 1.

    Args:
        entries: the inputs of the session.
        batch: the first size of every input.
        image_size: height and width of images of any size.
        length: any other size that the file leaves open.
    """
    generator, feed = np.random.default_rng(0), {}
    for entry in entries:
        picture = len(entry.shape) == 4 and entry.shape[3] in (1, 3)
        free = image_size if picture else length
        shape = [size if isinstance(size, int) else free for size in entry.shape]
        shape[:1] = [batch] * bool(shape)
        kind = entry.type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype(_DTYPES.get(kind, kind))
        if dtype.kind == "f":
            feed[entry.name] = generator.random(shape).astype(dtype)
        else:
            most = 256 if dtype == np.uint8 else 2
            feed[entry.name] = generator.integers(0, most, shape).astype(dtype)
    return feed


def _accepted_feed(opened, path: str, batch: int, image_size: int) -> dict[str, np.ndarray]:
    """Returns random inputs of the first size that the file takes; runs it with them once."""
    import onnxruntime

    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # a size that does not fit is no error
    entries, why = opened.get_inputs(), None
    open_sizes = any(not isinstance(size, int) for entry in entries for size in entry.shape[1:])
    for length in LENGTHS if open_sizes else LENGTHS[:1]:
        try:
            feed = random_feed(entries, batch, image_size, length)
            opened.run(None, feed, quiet)
        except Exception as error:  # onnxruntime's exception classes are not public
            why = why or error
        else:
            return feed
    raise ValueError(f"'{path}' does not run on random inputs, {batch} in a batch: {why}")


def _latency(run, batch: int, seconds: float) -> Latency:
    _times(run, seconds * WARM_UP, 1)
    times = _times(run, seconds, FEWEST_RUNS)
    median, p90 = (float(1000 * value) for value in np.percentile(times, [50, 90]))
    return Latency(batch, len(times), median, p90, batch * len(times) / sum(times))


def _times(run, seconds: float, fewest: int) -> list[float]:
    """Runs until the sum of the times reaches `seconds`; returns the times."""
    times: list[float] = []
    total = 0.0
    while len(times) < fewest or total < seconds:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
        total += times[-1]
    return times
