"""Bundles whose weights are stored in float16 and int8."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.export_helpers import answer, images
from helpers.pack_helpers import conv_trunk, pack_task, packed
from packnet_tf.export import export_all, export_bundle, verify
from packnet_tf.export.bundle.stored import decode, encode, precisions_of, seen_weights
from packnet_tf.tasks.storage import _with_digests

LOWER = ("float16", "int8")
BITS = {"float16": 16, "int8": 8}


# What is stored


def owned(kernel):
    """The owners of a kernel that belongs to one task."""
    return np.ones(kernel.shape, np.uint8)


def test_int8_has_a_scale_per_output_channel():
    matrix = np.array([[0.5, -2.0], [0.25, 1.0]], np.float32)
    stored, scale = encode(matrix, "int8", owned(matrix))
    assert stored.tolist() == [[127, -127], [63, 64]]  # 63.44; the second for the sum of -63.44
    assert scale.dtype == np.float16
    exact = np.array([[0.5, 2.0]]) / 127
    assert (exact <= scale).all()
    assert (scale < exact * (1 + 2**-10)).all()
    convolution = np.array([[[[1.0, -0.5]]], [[[0.0, 0.0]]]], np.float32)  # (out, in, h, w)
    stored, scale = encode(convolution, "int8", owned(convolution))
    assert stored.reshape(2, 2).tolist() == [[127, -64], [0, 0]]
    assert scale.shape == (2, 1, 1, 1)


@pytest.mark.parametrize("largest", [1e-9, 1e-6, 1e-3, 1.0, 1e6])
def test_no_weight_is_cut_off_at_any_magnitude(largest):
    kernel = (largest * np.linspace(-1, 1, 255, dtype=np.float32))[:, None]
    stored, scale = encode(kernel, "int8", owned(kernel))
    assert np.abs(stored.astype(int)).max() <= 127
    assert np.abs(decode(stored, scale) - kernel).max() <= max(float(scale.max()) * 0.5000001, 4e-8)
    if largest > 1e-5:
        assert np.abs(stored.astype(int)).max() >= 119


def test_weights_that_int8_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"A packed weight is 1e\+07, too large for int8"):
        encode(np.float32([[1e7]]), "int8", np.array([[1]]))


def test_the_axis_of_the_channels_and_the_smallest_scales_may_be_given():
    kernel = np.array([[[[1.0]], [[-0.5]]], [[[0.5]], [[4.0]]]], np.float32)  # (in, out, h, w)
    stored, scale = encode(kernel, "int8", owned(kernel), channel=1)
    assert stored.reshape(2, 2).tolist() == [[127, -16], [63, 127]]
    least = np.float16([1 / 64, 1 / 64]).reshape(1, 2, 1, 1)
    stored, scale = encode(kernel, "int8", owned(kernel), channel=1, least=least)
    assert stored.reshape(2, 2).tolist() == [[64, -16], [32, 127]]
    assert scale[0, 0] == least[0, 0]
    assert scale[0, 1] > least[0, 1]


@pytest.mark.parametrize("precision", LOWER)
def test_errors_are_a_step_and_those_of_sums_are_half_a_step(precision):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, 4, 3, 3)).astype("float32")
    kernel[kernel < -0.5] = 0
    owner = rng.integers(1, 4, kernel.shape)
    stored, scale = encode(kernel, precision, owner)
    found = decode(stored, scale)
    largest = np.abs(kernel).max((1, 2, 3), keepdims=True)
    step = largest * 2.0**-10 if scale is None else scale.astype(np.float32)
    assert (found[kernel == 0] == 0).all()
    assert (np.abs(found - kernel) <= step * (1 + 1e-6)).all()
    nearest = kernel.astype(np.float16) if scale is None else np.rint(kernel / step) * step
    for number in (1, 2, 3):
        here = owner == number
        lost = np.abs(np.where(here, found - kernel, 0).sum((1, 2, 3)))
        before = np.abs(np.where(here, nearest - kernel, 0).sum((1, 2, 3), dtype=np.float64))
        assert (lost <= 0.5001 * step.ravel()).all()
        assert lost.mean() < 0.7 * before.mean()
    assert encode(np.float32([[1e6]]), "float16", np.array([[1]]))[0] == 65504


def test_the_smallest_kernels_of_an_int8_bundle_stay_in_float16():
    sizes = [100, 50, 14_850, 50]
    found = ["float16", "float16", "int8", "float16"]
    assert precisions_of(sizes, "int8") == found
    assert precisions_of([200, *sizes], "int8") == ["int8", *found]
    for precision in ("float32", "float16"):
        assert precisions_of(sizes, precision) == [precision] * 4


def test_a_kernel_that_is_read_in_two_layouts_is_verified_as_it_is_stored(tmp_path):
    words = keras.Input((6,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(600, 16, tie_weights=True)
    # 256 weights: more than 1/64 of all when the embedding counts once, less when it counts twice.
    features = embedding(keras.layers.Dense(16)(embedding(words)), reverse=True)
    features = keras.layers.GlobalAveragePooling1D()(features)
    net = packnet_tf.PackNet(keras.Model(words, features), embeddings="packed")
    pack_task(net, "one")
    export_bundle(net, tmp_path, precision="int8")
    [verdict] = verify(net, tmp_path)
    assert verdict.problems == []


def test_every_shared_file_was_stored_by_itself():
    values, owner = np.float32([[1.0, 100.0, 3.0]]).T, np.array([[1, 2, 0]]).T
    both = seen_weights(values, owner, [1, 2], [(1, 2)], "int8")
    apart = seen_weights(values, owner, [1, 2], [(1, 1), (2, 2)], "int8")
    assert both[0, 0] == pytest.approx(100 / 127, rel=1e-3)  # one step of the larger scale
    assert apart[0, 0] == pytest.approx(1.0, rel=1e-3)
    for found in (both, apart):
        assert found[1, 0] == pytest.approx(100.0, rel=1e-3)
        assert found[2, 0] == 0
    assert seen_weights(values, owner, [2], [(1, 1), (2, 2)], "int8")[0, 0] == 0


# Bundles


@pytest.mark.parametrize("precision", LOWER)
def test_a_task_answers_with_its_weights_rounded(precision, tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    export_bundle(net, tmp_path, precision=precision, verbose=False)
    pack_task(net, "three", 0.5, seed=20)
    pack_task(net, "four", 0, seed=30)
    export_bundle(net, tmp_path, precision=precision, update_from=tmp_path, verbose=False)
    assert [v.problems for v in verify(net, tmp_path)] == [[]] * 4
    export_all(net, tmp_path / "baked", verbose=False)
    x = images(net)
    for number in range(1, 5):
        name = f"model_task{number}.onnx"
        found, exact = answer(tmp_path / name, x), answer(tmp_path / "baked" / name, x)
        largest = np.abs(found - exact).max() / np.abs(exact).max()
        assert 0 < largest < {"float16": 2e-3, "int8": 3e-2}[precision]


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(("count", "owner_bits"), [(4, 2), (10, 4)])
def test_weights_take_their_bits_and_those_of_their_owners(count, owner_bits, precision, tmp_path):
    inputs = keras.Input((8, 8, 16))
    x = layers.Conv2D(128, 3, activation="relu")(inputs)
    x = layers.Dense(256)(layers.GlobalAveragePooling2D()(x))
    net = packed(keras.Model(inputs, x), **{f"task{n}": 0.5 for n in range(count)})
    manifest = export_bundle(net, tmp_path, precision=precision, verbose=False)
    [shared] = manifest["shared"]
    assert shared["precision"] == precision
    total = net.capacity().sum()["total"]
    share = shared["bytes"] / (4 * total)
    expected = (BITS[precision] + owner_bits) / 32
    assert expected <= share < 1.05 * expected  # int8: some kernels are in float16
    assert precision == "float16" or share <= {4: 0.33, 10: 0.40}[count]


def test_a_bundle_is_updated_in_its_own_precision(tmp_path):
    net = packed(conv_trunk(), one=0.5)
    export_bundle(net, tmp_path, precision="int8", verbose=False)
    pack_task(net, "two", seed=20)
    with pytest.raises(ValueError, match=r"in int8, and this update is to be in float32") as error:
        export_bundle(net, tmp_path, update_from=tmp_path)
    assert "Write precision='int8'" in str(error.value)
    with pytest.raises(ValueError, match=r"all 8 bits of int8\. Leave reduce_range out"):
        export_bundle(net, tmp_path, precision="int8", reduce_range=True)


def test_weights_of_another_precision_are_found(tmp_path):
    net = packed(conv_trunk(), one=0.5, two=0.5)
    export_bundle(net, tmp_path, precision="int8", verbose=False)
    [kernel, *_] = net.state.weights.values()
    values = keras.ops.convert_to_numpy(kernel.packed).copy()
    values *= np.float32(1.01)
    kernel.packed.assign(values)
    # As a pack that was committed with these weights has it.
    net.state = _with_digests(net.state)
    problems = [problem for verdict in verify(net, tmp_path) for problem in verdict.problems]
    assert any("is not what the pack gives for this task" in problem for problem in problems)
