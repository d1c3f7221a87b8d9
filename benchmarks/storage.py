"""Saving and loading a pack of four tasks, against Keras's file of the plain trunk.

`net.save` returns when the pack is on the disk, so Keras is timed both with and without a flush.
"""

import os
import pathlib
import tempfile
from functools import partial

from benchmarks.command import in_process, run
from benchmarks.networks import build_trunk, packed, sized
from benchmarks.rows import Row, counted, in_turns, timed

CASES = sized(TinyDarknet=96, MobileNetV2=96, ResNet50=64, VGG16=64)
TASKS = 4


def measure(case: tuple[str, int], turns: int) -> list[Row]:
    """Measures a network."""
    import keras

    import packnet_tf

    trunk = build_trunk(*case)
    net = packed(trunk, TASKS)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pathlib.Path(folder) / "pack.keras", pathlib.Path(folder) / "trunk.keras"
        saves = {
            "net.save": partial(net.save, ours),
            "model.save": partial(trunk.save, theirs),
            "model.save, flushed": partial(flushed, trunk, theirs),
        }
        saves = in_turns(saves, turns)
        plain_load = partial(keras.saving.load_model, theirs, compile=False)
        loads = {"packnet_tf.load": partial(packnet_tf.load, ours), "load_model": plain_load}
        loads = in_turns(loads, turns)
        size, plain = ours.stat().st_size, theirs.stat().st_size
    own = sum(net.storage()["tasks"].values())
    heads = 4 * sum(net.task_model(task).head.count_params() for task in net.tasks)
    return [
        timed(saves, "net.save", "model.save", 1.3),
        timed(saves, "net.save", "model.save, flushed", 1.3),
        timed(loads, "packnet_tf.load", "load_model", 1.3),
        counted("pack without heads", size - heads, "bytes", "trunk", plain, 1.07),
        counted("also without norms per task", size - own, "bytes", "trunk", plain, 1.07),
    ]


def flushed(model, path) -> None:
    """Saves a model and flushes it to the disk, as `net.save` does."""
    model.save(path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=7)
