"""`packnet bench import`: importing packnet_tf beside importing Keras."""

import subprocess
import sys
from collections.abc import Callable, Iterator

from benchmarks.rows import Row, timed
from benchmarks.turns import Times

KERAS = "import tensorflow, keras"
PARTS = {
    "import packnet_tf": "import packnet_tf",
    "and its layers and nets": "import packnet_tf; packnet_tf.PackNet",
    "and the trainer": "import packnet_tf; packnet_tf.PackTrainer",
    "and the exporter": "import packnet_tf.export; packnet_tf.export.export_onnx",
}
MORE = 0.1  # seconds that ours may take more

# Both in one process, one after the other: what a process takes differs from the next one's by
# more than our part of it.
PROCESS = """
from time import perf_counter
began = perf_counter()
{first}
between = perf_counter()
{second}
print(between - began, perf_counter() - between)
"""


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times imports in new Python processes: Keras with TensorFlow, then what we add to it."""
    parts = {part: code for part, code in PARTS.items() if only(part)}
    say(f"{turns} turns of {len(parts)} processes")
    found: dict[str, Times] = {part: {KERAS: [], "both": [], part: []} for part in parts}
    for turn in range(turns + 1):
        for part, times in found.items():
            keras, ours = imported(KERAS, parts[part])
            if turn:  # the first reads files that are in no cache yet
                for side, seconds in ((KERAS, keras), ("both", keras + ours), (part, ours)):
                    times[side].append(seconds)
    for part, times in found.items():
        yield timed(part, times, "both", KERAS)
        yield timed(part, times, part, None, MORE)


def imported(first: str, second: str) -> tuple[float, float]:
    """Seconds that two statements take, one after the other, in a new process."""
    code = PROCESS.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    one, two = done.stdout.split()
    return float(one), float(two)
