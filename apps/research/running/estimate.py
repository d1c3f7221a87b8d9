"""The dry run: lists the runs of a comparison, and estimates their time from a timed step."""

import pathlib
import statistics
import time
from collections.abc import Sequence

import keras
import numpy as np

from packnet_tf.apps.images.folders import readable_files
from packnet_tf.apps.images.listing import SPLITS
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.images.trunks import load_trunk
from packnet_tf.apps.packs import rates
from packnet_tf.apps.research.definition import Comparison
from packnet_tf.apps.research.methods.plain import LOSS, with_heads
from packnet_tf.apps.research.running.worker import RESULT
from packnet_tf.apps.research.runs import Entry, Run, folder_of
from packnet_tf.apps.research.settings import Settings
from packnet_tf.backend.distribution import has_accelerator
from packnet_tf.reporting.tables import text_table

STEPS = 3  # steps to time, after one that traces


def estimate(
    comparison: Comparison, entries: Sequence[Entry], runs: Sequence[Run], folder: pathlib.Path,
    jobs: int,
) -> str:  # fmt: skip
    """Returns a table of the runs; trains nothing and downloads nothing.

    Args:
        comparison: the comparison.
        entries: the entries of its report.
        runs: the runs, without duplicates.
        folder: folder of all runs, some of which may be finished.
        jobs: number of runs at once.
    """
    batch = runs[0].tasks[0]["settings"]["batch_size"]
    given = comparison.trunk
    trunk = load_trunk(
        given.network, comparison.image_size, given.output, given.pixel_scale, "none"
    )
    train, answer = time_steps(trunk, batch)
    read = time_images(runs[0], trunk.input_shape[1:], batch)
    rows, total = [], 0.0
    counted: set[str] = set()
    for method in comparison.methods:
        own = {run.key: run for e in entries if e.label == method.label for run in e.runs}
        left = [
            run for key, run in own.items()
            if key not in counted and not (folder / key / RESULT).exists()
        ]  # fmt: skip
        counted |= set(own)
        seconds = sum(seconds_of(run, train / batch, answer / batch, read / batch) for run in left)
        total += seconds
        rows.append([method.label, method.kind, str(len(own)), str(len(left)), hours(seconds)])
    rows.append(["all", "", str(len(runs)), "", hours(total)])
    images = [
        [
            name,
            path,
            str(len(images.classes)),
            *(f"{len(images.files[split]):,}" for split in SPLITS),
        ]
        for name, path, images in _folders(runs)
    ]
    lines = [
        text_table(["task", "folder", "classes", "training images", "validation", "test"], images),
        "",
        text_table(["method", "kind", "runs", "to do", "time, one at a time"], rows, total=1),
        "",
        f"From a step of {batch} images timed here: {train:.3f} s to train everything, "
        f"{answer:.3f} s to answer, {read:.3f} s to read and augment.",
        f"{jobs} of them at once.",
        "Nothing was trained. Leave --dry_run out to run it.",
    ]
    return "\n".join(lines)


def time_steps(trunk: keras.Model, batch: int) -> tuple[float, float]:
    """Returns the median seconds of a training step and of inference, on a random batch."""
    model = with_heads(trunk, [keras.layers.Dense(10)])
    model.compile(rates.optimizer("sgd")(1e-6), LOSS, jit_compile=has_accelerator())
    pixels = np.random.default_rng(0).uniform(0, 255, (batch, *trunk.input_shape[1:]))
    pixels, labels = pixels.astype("float32"), np.zeros(batch, "int32")
    return (
        _median_time(lambda: model.train_on_batch(pixels, labels)),
        _median_time(lambda: model.predict_on_batch(pixels)),
    )


def time_images(run: Run, shape: tuple[int, int, int], batch: int) -> float:
    """Returns the seconds to read and augment a batch of images of a run's first task."""
    task = run.tasks[0]
    settings, files = Settings(**task["settings"]), folder_of(task, run.seed).files["train"]
    files = files[:: max(1, len(files) // (4 * batch))][: 4 * batch]
    files, unreadable = readable_files(files)
    if not files:
        raise ValueError(f"task '{task['name']}': {next(iter(unreadable.values()))}.")
    pipeline = Pipeline(shape, batch, run.seed, False, shorter_side=settings.shorter_side)
    data = pipeline.training(files, settings.flip, settings.crop)
    began = time.perf_counter()
    for _ in data:
        pass
    return (time.perf_counter() - began) * batch / len(files)


def seconds_of(run: Run, train: float, answer: float, read: float) -> float:
    """Estimates the seconds of a run.

    Args:
        run: the run.
        train: seconds per image to train all weights.
        answer: seconds per image for inference.
        read: seconds per image to read and augment it, which overlaps with training.
    """
    total, images_before = 0.0, 0
    for place, task in enumerate(run.tasks):
        settings = task["settings"]
        counts = {s: len(f) for s, f in folder_of(task, run.seed).files.items()}
        epochs = settings["epochs"]
        if settings["head"] == "pretrained" and run.kind not in ("packnet", "joint"):
            epochs = 0
        step = answer if run.kind == "classifier_only" else train
        if run.kind == "lwf" and place:
            step += answer  # of the network before the task
            total += counts["train"] * run.options["warm_up"] * answer
        total += (
            counts["train"] * epochs * (max(step, read) if settings["cache"] is False else step)
        )
        images_before += counts["validation"] + counts.get("test", 0)
        looks = epochs if run.kind == "packnet" else 0
        total += (counts["validation"] * looks + images_before) * answer
    return total


def hours(seconds: float) -> str:
    """Formats a duration in hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _folders(runs: Sequence[Run]):
    tasks = {task["name"]: (task, run.seed) for run in runs for task in run.tasks}
    return [(name, task["data"], folder_of(task, seed)) for name, (task, seed) in tasks.items()]


def _median_time(step) -> float:
    step()
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
