"""`packnet bench input`: the images of a task alone beside the training step that they feed."""

import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import cases
from benchmarks.rows import Row, timed
from benchmarks.trunks import CLASSES
from benchmarks.turns import Times, seconds_of
from packnet_tf.apps.images.pipeline import Pipeline

# Network, pixels, batch size, and the size of the photographs.
CASES = (("TinyDarknet", 96, 32, 256), ("MobileNetV2", 96, 32, 256), ("TinyDarknet", 64, 32, 96))
BATCHES = 24  # of photographs
FIRST, LATER = 1.5, 5.0  # how many times as fast as the step
STEPS = BATCHES // 3  # of an epoch of `fit`
UNTUNED, TUNED = "step within fit, no tuner", "with tf.data's tuner"
EPOCHS = 4  # of `fit` with tf.data's tuner and without, for one turn


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times passes over made-up photographs, flipped and cropped, and training steps in turns."""
    some = [(cases.Case(*network, "graph", "SGD", goal=1.0), side) for *network, side in CASES]
    for case, side in cases.wanted(some, lambda pair: title_of(*pair), only, say):
        with tempfile.TemporaryDirectory() as folder:
            files = photographs(pathlib.Path(folder), BATCHES * case.batch, side)
            times = measure(case, files, turns)
        for what, faster in (("first epoch", FIRST), ("later epochs", LATER)):
            yield timed(title_of(case, side), times, what, "training step", 1 / faster)
        tuner = {what: times[what] for what in (UNTUNED, TUNED)}
        means = [f"{1000 * statistics.mean(seconds):.0f} ms" for seconds in tuner.values()]
        note = f"means {means[0]} and {means[1]}"  # few epochs are late, and those by much
        yield timed(title_of(case, side), tuner, UNTUNED, TUNED, note=note)


def title_of(case: cases.Case, side: int) -> str:
    """The network, and its photographs."""
    return f"{case.network} {case.pixels} px x {case.batch}, JPEG of {side} px"


def measure(case: cases.Case, files, turns: int) -> Times:
    """Seconds of a batch in the first pass and in later ones, and of a training step.

    And of one within `fit`, on the same batch again and again, with tf.data's tuner and without.
    """
    model = cases.packed_model(case, 0)
    cases.compile_model(model, case)
    random = cases.random_batch(case)
    cases.fit_steps(model, random, 2)
    times = {"first epoch": [], "later epochs": [], "training step": [], UNTUNED: [], TUNED: []}
    for _ in range(turns):
        pipeline = Pipeline((case.pixels, case.pixels, 3), case.batch, seed=0)
        data = pipeline.training(files, flip=True, crop=True)
        for side in ("first epoch", "later epochs"):
            times[side].append(seconds_of(lambda data=data: exhaust(data)) / BATCHES)
        seconds = seconds_of(lambda: cases.fit_steps(model, random, STEPS))
        times["training step"].append(seconds / STEPS)
        for _ in range(EPOCHS):
            for side, tuned in ((UNTUNED, False), (TUNED, True)):
                seconds = seconds_of(
                    lambda tuned=tuned: cases.fit_steps(model, random, STEPS, tuned)
                )
                times[side].append(seconds / STEPS)
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
