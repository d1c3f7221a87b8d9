"""The networks that benchmarks measure."""

import keras
import numpy as np
from keras import layers

from benchmarks import networks


def test_packed_tasks_have_equal_shares_and_differ():
    trunk = keras.Sequential([keras.Input((8,)), layers.Dense(15)])
    net = networks.packed(trunk, 3)
    assert net.capacity().sum()["owned"] == {f"task{number}": 40 for number in (1, 2, 3)}
    x = np.ones((1, 8), np.float32)
    first, second, third = (np.asarray(net.task_model(name)(x)) for name in net.tasks)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_tiny_darknet_has_the_published_layout():
    trunk = networks.build_trunk("TinyDarknet", 96)
    convolutions = [x for x in trunk.layers if isinstance(x, layers.Conv2D)]
    filters = [16, 32, 16, 128, 16, 128, 32, 256, 32, 256, 64, 512, 64, 512, 128]
    assert [x.filters for x in convolutions] == filters
    assert [x.kernel_size[0] for x in convolutions] == [3, 3, *[1, 3, 1, 3] * 3, 1]
    assert trunk.output_shape == (None, 128)
    assert trunk.layers[-1].input.shape == (None, 6, 6, 128)
