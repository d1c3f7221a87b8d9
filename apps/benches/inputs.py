"""`packnet bench input`: the images of a task alone beside the training step that they feed."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from packnet_tf.apps.benches import cases
from packnet_tf.apps.benches.rows import Row, timed
from packnet_tf.apps.benches.trunks import CLASSES
from packnet_tf.apps.benches.turns import Times, seconds_of
from packnet_tf.apps.pipeline import Pipeline

# Network, pixels, batch size, and the size of the photographs.
CASES = (("TinyDarknet", 96, 32, 256), ("MobileNetV2", 96, 32, 256), ("TinyDarknet", 64, 32, 96))
BATCHES = 24  # of photographs
FIRST, LATER = 1.5, 5.0  # how many times as fast as the step


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times passes over made-up photographs, flipped and cropped, and training steps in turns."""
    some = [(cases.Case(*network, "graph", "SGD", goal=1.0), side) for *network, side in CASES]
    for case, side in cases.wanted(some, lambda pair: title_of(*pair), only, say):
        with tempfile.TemporaryDirectory() as folder:
            files = photographs(pathlib.Path(folder), BATCHES * case.batch, side)
            times = measure(case, files, turns)
        for what, faster in (("first epoch", FIRST), ("later epochs", LATER)):
            yield timed(title_of(case, side), times, what, "training step", 1 / faster)


def title_of(case: cases.Case, side: int) -> str:
    """The network, and its photographs."""
    return f"{case.network} {case.pixels} px x {case.batch}, JPEG of {side} px"


def measure(case: cases.Case, files, turns: int) -> Times:
    """Seconds of a batch in the first pass and in later ones, and of a training step."""
    model = cases.packed_model(case, 0)
    cases.compile_model(model, case)
    random = cases.random_batch(case)
    cases.fit_steps(model, random, 2)
    times = {"first epoch": [], "later epochs": [], "training step": []}
    for _ in range(turns):
        pipeline = Pipeline((case.pixels, case.pixels, 3), case.batch, seed=0)
        data = pipeline.training(files, flip=True, crop=True)
        for side in ("first epoch", "later epochs"):
            times[side].append(seconds_of(lambda data=data: exhaust(data)) / BATCHES)
        steps = BATCHES // 3
        seconds = seconds_of(lambda steps=steps: cases.fit_steps(model, random, steps))
        times["training step"].append(seconds / steps)
    return times


def exhaust(data) -> None:
    """One pass over a dataset, within TensorFlow."""
    import tensorflow as tf

    data.reduce(tf.constant(0), lambda count, _: count + 1).numpy()


def photographs(folder: pathlib.Path, count: int, side: int) -> list[tuple[str, int]]:
    """JPEG files with smooth shapes and some noise, and labels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, np.int16) + rng.integers(-8, 9, (side, side, 3))
        path = folder / f"{number}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        files.append((str(path), number % CLASSES))
    return files
