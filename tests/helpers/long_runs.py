"""Sixteen short trainings in a row, of a pack or of plain Keras, in a process of its own.

Run as a script with "pack" or "plain"; prints the growth of the resident memory in MB.
"""

import gc
import pathlib
import sys

import keras
import numpy as np
from keras import layers

import packnet_tf

CYCLES, WARM = 16, 5


def trunk():
    return keras.Sequential(
        [
            keras.Input((512,), name="features"),
            layers.Dense(512, activation="relu", name="first"),
            layers.Dense(512, activation="relu", name="second"),
        ],
        name="trunk",
    )


def plain(_, x, y):
    model = keras.Sequential([trunk(), layers.Dense(4, name="logits")])
    fit(model, x, y)


def pack(net, x, y):
    fit(net.add_task("birds", layers.Dense(4, name="logits")), x, y)
    net.discard()


def fit(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)


def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 512)).astype("float32")
    y = rng.integers(0, 4, 64)
    net = packnet_tf.PackNet(trunk())
    for cycle in range(CYCLES):
        if cycle == WARM:
            warm = resident()
        {"pack": pack, "plain": plain}[kind](net, x, y)
        gc.collect()
    print(f"{resident() - warm:.1f}")


if __name__ == "__main__":
    main(sys.argv[1])
