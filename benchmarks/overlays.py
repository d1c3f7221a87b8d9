"""Bytes that a task with an overlay of 2 % adds to a pack and to a bundle, against one network.

Its head is left out. Its norms are its own; the rows "without norms" leave them out, too. In a
bundle, every task also has its graph, without weights.
"""

import math
import pathlib
import tempfile
from functools import partial

import numpy as np

from benchmarks.command import in_process, run
from benchmarks.networks import CLASSES, build_trunk, packed, sized
from benchmarks.rows import Row, counted

CASES = sized(TinyDarknet=96, MobileNetV2=96, ResNet50=64)
OVERLAY, GOAL = 0.02, 0.03
FULL = 2  # tasks that own all weights


def measure(case: tuple[str, int], turns: int) -> list[Row]:
    """Measures a network; sizes need no turns."""
    import keras

    from packnet_tf.backend.keras_internals import all_layers
    from packnet_tf.export import export_bundle

    net, network = packed(build_trunk(*case), FULL), _network_bytes(build_trunk(*case))
    packs, bundles = [], []
    with tempfile.TemporaryDirectory() as folder:
        where = pathlib.Path(folder)
        for name in ("full", "more"):
            if name == "more":
                model = _overlay(net)
            net.save(where / f"{name}.keras")
            packs.append((where / f"{name}.keras").stat().st_size)
            bundle = export_bundle(net, where / name, verbose=False)
            bundles.append(sum(file["bytes"] for file in [*bundle["shared"], *bundle["tasks"]]))
    head = 4 * model.head.count_params()
    norms = 4 * sum(
        math.prod(variable.shape)
        for layer in all_layers(model.trunk)
        if isinstance(layer, keras.layers.BatchNormalization)
        for variable in layer.weights
    )
    rows = []
    for what, (before, after) in {"pack": packs, "bundle": bundles}.items():
        more = after - before - head
        rows.append(counted(f"in a {what}", more, "bytes", "trunk", network, GOAL))
        what = f"in a {what}, without norms"
        rows.append(counted(what, more - norms, "bytes", "trunk", network, GOAL))
    return rows


def _network_bytes(trunk) -> int:
    """Returns the size of Keras's file of a trunk."""
    with tempfile.TemporaryDirectory() as folder:
        trunk.save(f"{folder}/trunk.keras")
        return pathlib.Path(f"{folder}/trunk.keras").stat().st_size


def _overlay(net):
    """Adds a task with an overlay to a pack, trained by random steps; returns its model."""
    import keras

    model = net.add_task("more", keras.layers.Dense(CLASSES), overlay=OVERLAY)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        values = keras.ops.convert_to_numpy(variable)
        variable.assign(values + 0.1 * rng.standard_normal(values.shape, dtype=np.float32))
    net.prune(1 - OVERLAY)
    net.commit()
    return model


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=1)
