"""`packnet bench storage`: a pack of four tasks saved and loaded, beside the plain trunk."""

import pathlib
import tempfile
from collections.abc import Callable, Iterator

from benchmarks.cases import wanted
from benchmarks.rows import Row, counted, timed
from benchmarks.trunks import build_trunk, packed
from benchmarks.turns import in_turns
from packnet_tf.backend.atomic import flush

CASES = (("TinyDarknet", 96), ("MobileNetV2", 96), ("ResNet50", 64), ("VGG16", 64))
TASKS = 4


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times `net.save` and `packnet_tf.load` beside Keras's, and compares the files."""
    for name, pixels in wanted(CASES, lambda case: case[0], only, say):
        yield from measure(name, pixels, turns)


def measure(name: str, pixels: int, turns: int) -> Iterator[Row]:
    """The rows of a network."""
    import keras

    import packnet_tf

    trunk = build_trunk(name, pixels)
    net = packed(trunk, TASKS)
    case = f"{name}, {TASKS} tasks"
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pathlib.Path(folder) / "pack.keras", pathlib.Path(folder) / "trunk.keras"
        saves = {
            "net.save": lambda: net.save(ours),
            "model.save": lambda: trunk.save(theirs),
            "model.save, flushed": lambda: flushed(trunk, theirs),
        }
        times = in_turns(saves, turns)
        yield timed(case, times, "net.save", "model.save", 1.3)
        yield timed(case, times, "net.save", "model.save, flushed", 1.3)
        loads = {
            "packnet_tf.load": lambda: packnet_tf.load(ours),
            "load_model": lambda: keras.saving.load_model(theirs, compile=False),
        }
        yield timed(case, in_turns(loads, turns), "packnet_tf.load", "load_model", 1.3)
        size, plain = ours.stat().st_size, theirs.stat().st_size
    own = sum(net.storage()["tasks"].values())
    heads = sum(record.head_bytes for record in net.state.committed)
    yield counted(case, "pack without heads", size - heads, "bytes", "trunk", plain, 1.07)
    yield counted(case, "also without norms per task", size - own, "bytes", "trunk", plain, 1.07)


def flushed(model, path) -> None:
    """Saves a model as `net.save` does a pack: on the disk when it returns."""
    model.save(path)
    flush(path)
