"""`packnet bench prune`: all of VGG-16 pruned at once."""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.cases import wanted
from benchmarks.rows import Row, counted, timed
from benchmarks.trunks import CLASSES, build_trunk
from benchmarks.turns import seconds_of
from packnet_tf.apps.device.memory import PeakMemory

CASES = (("VGG16", 224), ("ResNet50", 224), ("MobileNetV2", 224))
RATIO = 0.5


def bench(only: Callable[[str], bool], turns: int, say) -> Iterator[Row]:
    """Times `net.prune` beside one `numpy.partition` of every layer's magnitudes.

    Raises:
        RuntimeError: a layer released another number of weights than it had to.
    """
    for name, pixels in wanted(CASES, lambda case: case[0], only, say):
        yield from measure(name, pixels, turns)


def measure(name: str, pixels: int, turns: int) -> Iterator[Row]:
    """The rows of a network."""
    import keras

    import packnet_tf

    net = packnet_tf.PackNet(build_trunk(name, pixels))
    times, grown = {"net.prune": [], "numpy.partition": []}, []
    for turn in range(turns + 1):
        model = net.add_task("task", keras.layers.Dense(CLASSES))
        kernels = [weight.trainable for weight in net.state.weights.values()]
        claimed = {path: weight.claimed() for path, weight in net.state.weights.items()}

        def partition(kernels=kernels):
            for kernel in kernels:
                sizes = np.abs(keras.ops.convert_to_numpy(kernel)).reshape(-1)
                np.partition(sizes, round(RATIO * sizes.size) - 1)

        reference = seconds_of(partition)
        released = {}
        with PeakMemory() as memory:
            ours = seconds_of(lambda released=released: released.update(net.prune(RATIO)))
        if released != {path: round(RATIO * count) for path, count in claimed.items()}:
            raise RuntimeError(f"the counts are not exact: {released}")
        del model
        net.discard()
        if turn:  # the first one meets cold memory
            times["numpy.partition"].append(reference)
            times["net.prune"].append(ours)
            grown.append(memory.grown)
    total = sum(claimed.values())
    case = f"{name}, {total:,} weights, ratio {RATIO}"
    note = f"{sum(released.values()):,} released, as exact counts demand"
    yield timed(case, times, "net.prune", "numpy.partition", 2.0, note=note)
    largest = 4 * max(claimed.values())
    yield counted(case, "memory of net.prune", max(grown), "bytes", "largest layer", largest, 3.0)
