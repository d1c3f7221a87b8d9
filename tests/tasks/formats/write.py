"""Writes a pack of the present file format, with inputs and logits, beside this file.

  python tests/tasks/formats/write.py

Run it when `FORMAT` in packnet_tf/tasks/storage.py has changed, and keep the packs of earlier
formats.
"""

import pathlib

import keras
import numpy as np

import packnet_tf
from packnet_tf.tasks.storage import FORMAT

TASKS = {"one": {}, "two": {"reuse": "none"}, "three": {"overlay": 0.1}}


def write(folder: pathlib.Path) -> None:
    """Writes `format_N.keras` and `format_N.npz` to a folder."""
    trunk = keras.Sequential(
        [
            keras.Input((12,), name="features"),
            keras.layers.Dense(16, activation="relu", name="first"),
            keras.layers.Dense(8, activation="relu", name="second"),
        ],
        name="mlp",
    )
    net = packnet_tf.PackNet(trunk, biases="per_task")
    generator = np.random.default_rng(0)
    for name, options in TASKS.items():
        model = net.add_task(name, keras.layers.Dense(3), classes=["a", "b", "c"], **options)
        for variable in model.trainable_variables:
            old = keras.ops.convert_to_numpy(variable)
            new = generator.integers(-16, 17, old.shape) / 16  # sums are exact in any order
            variable.assign(np.where((old != 0) | (old.ndim == 1), new, 0))
        net.prune(0.5)
        net.commit()
    x = generator.integers(-4, 5, (5, 12)).astype("float32")
    logits = {name: keras.ops.convert_to_numpy(net.task_model(name)(x)) for name in net.tasks}
    net.save(folder / f"format_{FORMAT}.keras")
    np.savez(folder / f"format_{FORMAT}.npz", x=x, **logits)


if __name__ == "__main__":
    write(pathlib.Path(__file__).parent)
