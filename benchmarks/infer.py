"""`packnet bench infer`: the files of a packed task beside that of a network never packed."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.cases import wanted
from benchmarks.deploy import BASES, BATCHES, run_cases
from benchmarks.processes import in_process
from benchmarks.rows import Row, timed
from benchmarks.trunks import CLASSES
from benchmarks.turns import in_turns

CASES = (("TinyDarknet", 96), ("MobileNetV2", 96), ("ResNet50", 224), ("VGG16", 64))
SIDES = ("never packed", "baked", "bundle")
TASKS = 4
START = "packnet predict, to its answer"
ALONE = "onnxruntime, to its answer"
# The least that a program with the same libraries does for one answer.
ONE_ANSWER = """
import sys
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(entry,) = session.get_inputs()
pixels = Image.open(sys.argv[2]).resize(entry.shape[2:0:-1])
session.run(None, {entry.name: numpy.asarray(pixels, numpy.float32)[None]})
"""


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Latency in onnxruntime, and how long the commands of a device take to start."""
    for name, pixels in wanted(CASES, lambda case: case[0], only, say):
        with tempfile.TemporaryDirectory() as folder:
            options = [f"--image_size={pixels}", f"--tasks={TASKS}"]
            exported = in_process("benchmarks.deploy_files", name, folder, *options)
            files = {side: exported["files"][side] for side in SIDES if side in exported["files"]}
            cases = run_cases(files, turns, 0, say)
            yield from latencies(f"{name} {pixels} px", cases)
            yield from starts(f"{name} {pixels} px", files["baked"], pathlib.Path(folder), turns)


def latencies(case: str, cases: dict) -> Iterator[Row]:
    """Rows of what `run_cases` found."""
    for side, facts in cases.items():
        base = BASES.get(side)
        if base not in cases:
            continue
        for batch in map(str, BATCHES):
            ours, theirs = (one["latency"][batch] for one in (facts, cases[base]))
            yield Row(
                f"{case} x {batch}", side, ours["median_ms"] / 1000, "s", base,
                theirs["median_ms"] / 1000, ours["ratio"], goal=1.02,
            )  # fmt: skip


def starts(case: str, file: str, folder: pathlib.Path, turns: int) -> Iterator[Row]:
    """Rows of whole commands, from their start to their end."""
    from PIL import Image

    pictures = folder / "pictures"
    for place in range(CLASSES):
        (pictures / str(place)).mkdir(parents=True)
        noise = np.random.default_rng(place).integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(noise).save(pictures / str(place) / "picture.png")
    picture = pictures / "0" / "picture.png"
    packnet = [sys.executable, "-m", "packnet_tf.apps.main"]
    model = [f"--model={file}", "--pixel_range=0,255"]
    sides = {
        START: [*packnet, "predict", *model, str(picture)],
        "packnet evaluate, ten pictures": [*packnet, "evaluate", *model, f"--data={pictures}"],
        ALONE: [sys.executable, "-c", ONE_ANSWER, file, str(picture)],
    }
    calls = {
        side: lambda command=command: subprocess.run(command, check=True, capture_output=True)
        for side, command in sides.items()
    }
    times = in_turns(calls, 3 * turns)
    yield timed(case, times, START, None, 0.5)
    for side in list(sides)[:2]:
        yield timed(case, times, side, ALONE)
