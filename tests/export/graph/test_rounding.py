"""Weights rounded together, so that a convolution answers as in float32."""

import itertools

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx import numpy_helper

from helpers.precision_graphs import answer, constants, exported, feed
from packnet_tf.export.graph.layer_inputs import LayerInputs, typical, windows
from packnet_tf.export.graph.precision import to_precision
from packnet_tf.export.graph.rounding import (
    halved_by_sums,
    mean_loss,
    rounded_by_sums,
    rounded_kernel,
    rounded_together,
)


def test_sums_are_kept_and_the_closest_weights_change():
    values = np.array([[0.4, 0.3, 0.45, 0.0, 7.0], [-0.4, -0.4, 0.1, 0.0, -3.0]])
    expected = [[0, 0, 1, 0, 7], [-1, 0, 0, 0, -3]]
    assert rounded_by_sums(values, channel=0).tolist() == expected
    assert rounded_by_sums(values.T, channel=1).T.tolist() == expected


def test_sums_are_kept_for_each_owner_by_itself():
    values, owner = np.array([[0.4, 0.4, 0.4, 0.4]]), np.array([[1, 1, 2, 2]])
    assert rounded_by_sums(values, 0).sum() == 2  # of 1.6
    assert rounded_by_sums(values, 0, owner).tolist() == [[1, 0, 1, 0]]  # of 0.8 each
    assert rounded_by_sums(np.array([[127.4, 0.4]]), 0, largest=127).tolist() == [[127, 1]]


@pytest.mark.parametrize(("channel", "owners"), [(0, 1), (0, 4), (1, 10)])
def test_the_owners_of_a_channel_are_rounded_as_each_would_be_alone(channel, owners):
    rng = np.random.default_rng(owners)
    values = rng.normal(size=(9, 40, 3)).astype("float32") * np.float32(60)
    values[rng.random(values.shape) < 0.2] = 0
    owner = rng.integers(0, owners + 1, values.shape).astype("uint8")
    expected = np.zeros_like(values)
    for place in itertools.product(range(values.shape[channel]), range(owners + 1)):
        index = tuple(place[0] if axis == channel else slice(None) for axis in range(3))
        here = (owner[index] == place[1]) & (values[index] != 0)
        exact = values[index][here]
        found = np.clip(np.rint(exact), -127, 127)
        lack = np.rint((exact - found).sum(dtype=np.float64))
        can = np.abs(found + np.sign(lack)) <= 127
        gain = np.where(can, (exact - found) * np.sign(lack), -np.inf)
        first = np.argsort(-gain, kind="stable")[: int(abs(lack))]
        found[first[can[first]]] += np.sign(lack)
        expected[index][here] = found
    assert np.array_equal(rounded_by_sums(values, channel, owner), expected)


def test_integers_that_are_fixed_change_the_bias_alone():
    kernel = np.float32([[1.0, 2.0]])
    exact, given = np.float32([[[1, 3], [1, 1]]]), np.float32([[[1, 1], [1, 1]]])
    # The exact outputs are 3 and 5, those of the integers 2 and 2.
    assert mean_loss(kernel, np.int8([[2, 2]]), np.array(0.5), exact, given).tolist() == [2]


def test_halves_pass_their_errors_to_smaller_weights_of_the_same_owner():
    values = np.float32([[1.0004, 0.01, 0.0, 1.0004, 0.01]])
    found = halved_by_sums(values, 0, np.array([[1, 1, 1, 2, 2]]))
    small = np.float16(0.0104)  # float16 has 1.0 and 1.001
    assert found.tolist() == [[1.0, small, 0.0, 1.0, small]]
    assert halved_by_sums(np.float32([[1e6, 1.0]]), 0, np.array([[1, 1]])).tolist() == [[65504, 1]]


def test_outputs_are_closer_than_with_weights_rounded_to_the_nearest():
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(2, 9, 300)) + 10).astype("float32")  # alike, as a background is
    kernel = rng.normal(size=(8, 1, 3, 3)).astype("float32")  # two groups of four outputs
    kernel[:, :, 1, 1] = 0
    scale = np.abs(kernel).max((1, 2, 3)) / 7
    integers, shift = rounded_kernel(kernel, scale, inputs, inputs, 7, has_bias=False)
    nearest = np.rint(kernel / scale.reshape(-1, 1, 1, 1))
    assert integers.dtype == np.int8
    assert (integers[:, :, 1, 1] == 0).all()
    assert np.abs(integers).max() <= 7

    def error(found, bias=0):
        lost = (found * scale.reshape(-1, 1, 1, 1) - kernel).reshape(2, 4, 9)
        return np.sqrt(np.mean((lost @ inputs + np.broadcast_to(bias, 8).reshape(2, 4, 1)) ** 2))

    assert error(integers) < 0.5 * error(nearest)
    integers, shift = rounded_kernel(kernel, scale, inputs, inputs, 7, has_bias=True)
    assert error(integers, shift) < 0.5 * error(nearest)


def test_weights_and_bias_make_up_for_inputs_that_are_wrong():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(1, 4, 500)).astype("float32")
    given = 0.9 * exact + 1
    kernel = rng.normal(size=(3, 4)).astype("float32")
    scale = np.abs(kernel).max(1, keepdims=True) / 100
    integers, shift = rounded_kernel(kernel, scale, exact, given, 127, has_bias=True)
    means = (integers * scale) @ given[0].mean(1) + shift
    np.testing.assert_allclose(means, kernel @ exact[0].mean(1), atol=1e-6)
    # A penalty of ten times the mean square leaves a tenth of the difference to the weights.
    assert 1 < np.mean(np.abs(integers * scale).sum(1) / np.abs(kernel).sum(1)) < 1.03


def test_inputs_whose_products_are_too_large_give_no_kernel():
    inputs = np.full((1, 4, 8), 1e20, np.float32)
    assert rounded_kernel(np.ones((3, 4)), np.ones(3), inputs, inputs, 127, has_bias=False) is None


def test_rounding_in_blocks_is_that_of_one_weight_after_the_other():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 3, 150)) * 5
    inputs = rng.normal(size=(1, 150, 400)) + 1
    moments = inputs @ inputs.transpose(0, 2, 1) / 400
    blocks = rounded_together(values, moments, 127)
    lost = [np.einsum("i,ij,j->", r, moments[0], r) for r in (blocks - values)[0]]
    plain = [np.einsum("i,ij,j->", r, moments[0], r) for r in (np.rint(values) - values)[0]]
    assert (np.array(lost) < np.array(plain)).all()
    assert np.array_equal(rounded_together(values[:, :, :20], np.eye(20)[None], 127),
                          np.rint(values[:, :, :20]))  # fmt: skip


@pytest.mark.parametrize(
    ("strides", "dilations", "groups", "padding"),
    [
        *itertools.product([(1, 1), (2, 1)], [(1, 1), (1, 2)], [1, 2], [{"pads": [1, 0, 2, 1]}]),
        ((2, 2), (1, 1), 2, {"auto_pad": "SAME_UPPER"}),
        ((2, 2), (1, 1), 1, {"auto_pad": "SAME_LOWER"}),
        ((1, 1), (1, 1), 1, {"auto_pad": "VALID"}),
    ],
)
def test_windows_are_those_that_the_convolution_multiplies(strides, dilations, groups, padding):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 4, 7, 6)).astype("float32")
    kernel = rng.normal(size=(6, 4 // groups, 3, 2)).astype("float32")
    attributes = {"strides": strides, "dilations": dilations, "group": groups, **padding}
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    values = [onnx.helper.make_tensor_value_info(name, 1, None) for name in "xy"]
    graph = onnx.helper.make_graph(
        [node], "graph", values[:1], values[1:], [numpy_helper.from_array(kernel, "w")]
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"x": images})[0]
    known = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    whole = windows([images], kernel.shape, known, 10**6)
    found = kernel.reshape(groups, 6 // groups, -1) @ whole  # groups, outputs, (n, places)
    found = found.reshape(6, 3, -1).transpose(1, 0, 2).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert windows([images], kernel.shape, known, 12).shape[2] == 12  # four of each image


def test_layers_get_their_inputs_one_after_the_other(tmp_path):
    model = exported(background_trunk(), tmp_path)
    names = [node.input[0] for node in model.graph.node if node.op_type == "Conv"]
    feeds = typical(model, [feed(model, 5, 0), feed(model, 40, 1)])
    inputs = LayerInputs(model, feeds, [*names, names[-1]])
    for name in [*names, names[-1]]:
        whole = onnx.ModelProto.FromString(model.SerializeToString())
        del whole.graph.output[:]
        whole.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
        found = inputs.next()
        assert [len(values) for values in found] == [len(given["image"]) for given in feeds]
        for given, values in zip(feeds, found, strict=True):
            np.testing.assert_allclose(answer(whole, given), values, rtol=1e-4, atol=1e-5)


def test_typical_inputs_are_few_and_from_all_batches(tmp_path):
    model = exported(background_trunk(), tmp_path)
    feeds = [{"image": np.full((n, 12, 12, 3), n, np.float32)} for n in (300, 100)]
    chosen = typical(model, feeds)
    assert max(len(given["image"]) for given in chosen) <= 16
    means = np.concatenate([given["image"] for given in chosen]).mean((1, 2, 3)).tolist()
    assert (means.count(300), means.count(100)) == (96, 32)
    large = [{"image": np.zeros((40, 512, 512, 3), np.float32)}]
    assert sum(len(given["image"]) for given in typical(model, large)) == 16
    mixed = [{"image": np.zeros((2, side, side, 3), np.float32)} for side in (8, 9)]
    assert [given["image"].shape[1] for given in typical(model, mixed)] == [8, 9]


def background_trunk():
    """Convolutions that see a background, as in pictures of signs; some are depthwise."""
    inputs = x = keras.Input((12, 12, 3), name="image")
    for width in (16, 24, 32):
        x = layers.BatchNormalization()(layers.Conv2D(width, 3, use_bias=False)(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.ReLU(6.0)(x))
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def test_a_calibrated_file_loses_less_than_with_weights_rounded_to_the_nearest(
    tmp_path, monkeypatch
):
    model = exported(background_trunk(), tmp_path)

    def pictures(seed):
        x = feed(model, 200, seed)["image"]
        return {"image": np.where(np.abs(x) > 1.5, x, np.float32(-1.0))}

    def lost(made):
        """The error, and that part of it which is the same for all pictures."""
        x = pictures(2)
        error = answer(made, x) - answer(model, x)
        return np.sqrt(np.mean(error**2)), np.sqrt(np.mean(error.mean(0) ** 2))

    together = to_precision(model, "int8", [pictures(1)], reduce_range=True)
    monkeypatch.setattr("packnet_tf.export.graph.precision.round_kernels", lambda *_: None)
    nearest = to_precision(model, "int8", [pictures(1)], reduce_range=True)
    (error, alike), (error_before, alike_before) = lost(together), lost(nearest)
    assert error < 0.7 * error_before
    assert alike < 0.3 * alike_before
    before, after = constants(nearest), constants(together)
    assert before.keys() == after.keys()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert {after[name].dtype.name for name in changed} == {"int8", "int32"}  # no scale, no range


def test_dense_layers_of_sequences_are_rounded_too(tmp_path, monkeypatch):
    inputs = keras.Input((6, 32), name="sequence")
    x = layers.Dense(24, activation="relu")(layers.Dense(48, activation="relu")(inputs))
    model = exported(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)), tmp_path)
    [name] = [entry.name for entry in model.graph.input]
    given, other = ({name: feed(model, 100, seed)[name] + 2} for seed in (1, 2))
    together = to_precision(model, "int8", [given], reduce_range=True)
    monkeypatch.setattr("packnet_tf.export.graph.precision.round_kernels", lambda *_: None)
    nearest = to_precision(model, "int8", [given], reduce_range=True)
    lost = [np.sqrt(np.mean((answer(made, other) - answer(model, other)) ** 2))
            for made in (together, nearest)]  # fmt: skip
    assert lost[0] < 0.9 * lost[1]
    kernels = [name for name, array in constants(nearest).items() if array.shape == (32, 48)]
    assert len(kernels) == 1
    assert not np.array_equal(*(constants(made)[kernels[0]] for made in (together, nearest)))


def test_the_positions_of_dense_layers_are_evenly_chosen():
    sequences = np.arange(2 * 6 * 3, dtype=np.float32).reshape(2, 6, 3)
    found = windows([sequences], (5, 3), {}, 4)
    assert found.tolist() == sequences.reshape(12, 3)[[0, 3, 6, 9]].T[None].tolist()


def test_a_layer_of_huge_inputs_keeps_its_weights(tmp_path, monkeypatch):
    inputs = keras.Input((8,), name="image")
    model = exported(keras.Model(inputs, layers.Dense(6)(layers.Rescaling(1e20)(inputs))), tmp_path)
    together = to_precision(model, "int8", [feed(model)])
    monkeypatch.setattr("packnet_tf.export.graph.precision.round_kernels", lambda *_: None)
    assert np.array_equal(
        answer(together, feed(model)),
        answer(to_precision(model, "int8", [feed(model)]), feed(model)),
    )


@pytest.mark.parametrize("calibrated", [False, True])
def test_tables_before_a_loop_are_rounded_to_the_nearest(calibrated, tmp_path):
    inputs = keras.Input((4,), dtype="int32", name="tokens")
    table = layers.Embedding(10, 16)(inputs)
    model = exported(keras.Model(inputs, layers.Dense(3)(layers.GRU(5)(table))), tmp_path)
    lowered = to_precision(model, "int8", [feed(model)] if calibrated else None)
    assert np.isfinite(answer(lowered, feed(model))).all()  # onnxruntime runs it
    made = constants(lowered)
    [exact] = [array for array in constants(model).values() if array.shape == (10, 16)]
    [found] = [array for array in made.values() if array.shape == (10, 16)]
    scales = np.abs(exact).max(1, keepdims=True) / 127
    assert np.array_equal(found, np.rint(exact / scales))


def test_a_graph_with_a_fixed_batch_size_is_rounded_too(tmp_path):
    model = exported(background_trunk(), tmp_path, batch_size=3)
    batches = [feed(model, 3, seed) for seed in range(5)]
    made = to_precision(model, "int8", batches)
    assert answer(made, batches[0]).shape == (3, 3)
