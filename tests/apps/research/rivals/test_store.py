"""The file of a rival: what it counts, and that it gives back the same bits."""

import json

import keras
import numpy as np

from packnet_tf.apps.research.methods.rivals.store import Addition, Store
from packnet_tf.training import checkpoint

SHAPES = [(3, 5), (4,)]


def head():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def trunk():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(4)(inputs))


def store_of(extra, seed=None):
    rng = np.random.default_rng(0)
    shared = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    own = [np.arange(3, dtype="float32"), np.ones((), "float32")]
    return Store(shared, [], [Addition(extra, own, head()) for _ in range(2)], seed)


def masks():
    return [np.random.default_rng(1).random(shape) < 0.5 for shape in SHAPES]


def test_a_mask_takes_a_bit_for_each_weight_and_everything_else_four_bytes():
    (addition, _) = store_of(masks()).additions
    assert addition.bytes == 3 + 4 * 4 + 4 * 10  # 19 bits; four own weights; a head of 4 x 2 + 2
    factors = [np.ones((3, 1), "float32"), np.ones((1, 5), "float32")]
    assert store_of(factors).additions[0].bytes == 4 * 8 + 4 * 4 + 4 * 10
    assert store_of([]).additions[0].bytes == 4 * 4 + 4 * 10


def test_a_file_gives_back_the_same_bits_and_holds_the_layers_too(tmp_path):
    written, read = store_of(masks()), store_of(masks())
    size = written.write(tmp_path / "file.npz", trunk())
    assert size == (tmp_path / "file.npz").stat().st_size
    read.shared, read.additions = [np.zeros(shape, "float32") for shape in SHAPES], []
    read.read(tmp_path / "file.npz", SHAPES, [(3,), ()])
    for ours, theirs in zip(read.shared, written.shared, strict=True):
        assert np.array_equal(ours, theirs)
    for ours, theirs in zip(read.additions, written.additions, strict=True):
        for a, b in zip(ours.extra + ours.own, theirs.extra + theirs.own, strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        inputs = np.ones((1, 4), "float32")
        assert np.array_equal(ours.head(inputs), theirs.head(inputs))
    _, (text, *_) = checkpoint.load(tmp_path / "file.npz")
    layers = json.loads(text.tobytes())["trunk"]
    assert keras.models.model_from_json(json.dumps(layers)).output_shape == (None, 4)
    assert size < text.size + 4 * (19 + 2 * 14) + 2 * 3 + 4000  # of the archive, and its types


def test_weights_that_a_seed_draws_again_take_no_bytes(tmp_path):
    arrays = []
    for seed in (None, 7):
        store_of(masks(), seed).write(tmp_path / "file.npz", trunk())
        facts, (_, *found) = checkpoint.load(tmp_path / "file.npz")
        arrays.append(found)
        assert facts["seed"] == seed
    assert [array.size for array in arrays[0]] == [19, 3, 4, 10, 3, 4, 10]
    assert [array.size for array in arrays[1]] == [0, 3, 4, 10, 3, 4, 10]
