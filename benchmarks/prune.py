"""Time and memory of pruning a whole network by half, against `numpy.partition` of every kernel.

Fails unless every layer releases exactly half of its weights.
"""

from functools import partial

import numpy as np

from benchmarks.command import in_process, run
from benchmarks.networks import CLASSES, build_trunk, sized
from benchmarks.process_memory import memory, restart_peak
from benchmarks.rows import Row, counted, seconds_of, timed

CASES = sized(VGG16=224, ResNet50=224, MobileNetV2=224)
RATIO = 0.5


def measure(case: tuple[str, int], turns: int) -> list[Row]:
    """Measures a network."""
    import keras

    import packnet_tf

    net = packnet_tf.PackNet(build_trunk(*case))
    times, grown = {"net.prune": [], "numpy.partition": []}, []
    for turn in range(turns + 1):
        model = net.add_task("task", keras.layers.Dense(CLASSES))
        claimed = {path: entry["claimed"] for path, entry in net.capacity().items()}
        reference = seconds_of(partial(partition, model.trunk.trainable_variables))
        released = {}
        restart_peak()
        before = memory().resident
        ours = seconds_of(lambda released=released: released.update(net.prune(RATIO)))
        if turn:  # the first turn is a warm-up
            times["numpy.partition"].append(reference)
            times["net.prune"].append(ours)
            grown.append(memory().peak - before)
        if released != {path: round(RATIO * count) for path, count in claimed.items()}:
            raise RuntimeError(f"the counts are not exact: {released} of {claimed}")
        del model
        net.discard()
    note = f"{sum(released.values()):,} of {sum(claimed.values()):,} released, exactly"
    largest = 4 * max(claimed.values())
    return [
        timed(times, "net.prune", "numpy.partition", 2.0, note),
        counted("memory of net.prune", max(grown), "bytes", "largest layer", largest, 3.0),
    ]


def partition(variables) -> None:
    """Finds each kernel's threshold; skips biases and norms, which have one dimension."""
    import keras

    for variable in variables:
        if len(variable.shape) > 1:
            sizes = np.abs(keras.ops.convert_to_numpy(variable)).reshape(-1)
            np.partition(sizes, round(RATIO * sizes.size) - 1)


if __name__ == "__main__":
    run(CASES, partial(in_process, measure), repeats=7)
