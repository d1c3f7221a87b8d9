"""One exported file in a process of its own, as a device would run it: onnxruntime and numpy.

Imports neither Keras nor TensorFlow, so that memory is that of the file. The process loads the file
and says what that took; then it answers each line on its input, a batch size and seconds, with the
times of as many runs as fit in.
"""

import json
import subprocess
import sys
import time

from packnet_tf.apps.device.memory import memory, restart_peak


class SessionProcess:
    """Such a process, seen from outside; use it in a `with` block.

    Args:
        path: a `.onnx` file with one float32 input, all of whose sizes but the batch are fixed.
        threads: that onnxruntime calculates with; 0 for as many as it takes by itself.

    Attributes:
        loaded: what loading took: `load_seconds`, and in bytes, beyond what the process had
            before, `resident`, its own memory afterwards, and `load_peak`, the most of all memory
            meanwhile; None for both where the system does not tell.

    Raises:
        RuntimeError: the file cannot be loaded or run.
    """

    def __init__(self, path, threads: int = 0):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.session", str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self.loaded = self._answer()
        except RuntimeError:
            self.close()
            raise

    def run(self, batch: int, seconds: float) -> list[float]:
        """Runs a batch again and again, and returns the milliseconds of each run, at least one.

        The first run of a batch size is longer, because it plans the memory.
        """
        self._process.stdin.write(f"{batch} {seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            text = self._process.stderr.read().strip()
            raise RuntimeError(text.splitlines()[-1] if text else "the process ended, in silence")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def serve(path: str, threads: int, lines, answer) -> None:
    """Loads a file and times its runs.

    Args:
        path: the file.
        threads: as for `SessionProcess`.
        lines: of text, each a batch size and seconds.
        answer: called with what is found, for the load and then for each line.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = threads
    restart_peak()
    before, began = memory(), time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds, after = time.perf_counter() - began, memory()
    known = before is not None
    answer(
        {
            "load_seconds": seconds,
            "resident": after.own - before.own if known else None,
            "load_peak": after.peak - before.resident if known else None,
        }
    )
    [entry] = session.get_inputs()
    feeds = {}
    for line in lines:
        batch, seconds = line.split()
        if batch not in feeds:
            shape = (int(batch), *entry.shape[1:])
            x = np.random.default_rng(0).random(shape, dtype=np.float32)
            feeds[batch] = {entry.name: x}
        answer(timed(lambda: session.run(None, feeds[batch]), float(seconds)))  # noqa: B023


def timed(call, seconds: float) -> list[float]:
    """Milliseconds of calls, one after another, until their sum is `seconds`; at least one."""
    times = []
    while not times or sum(times) < 1000 * seconds:
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return times


if __name__ == "__main__":
    serve(
        sys.argv[1], int(sys.argv[2]), sys.stdin, lambda found: print(json.dumps(found), flush=True)
    )
