"""Operators that the converter lacks, or converts wrongly, answer as Keras does."""

import keras
import numpy as np
import onnx
import pytest
from keras import layers, ops

import packnet_tf
from helpers.export_helpers import answer
from helpers.pack_helpers import logits
from packnet_tf.export import export_onnx

INTEGERS = np.array(
    [[0, 1, 2], [-1, 1, 2], [4, 5, 9], [-1, -1, -1], [-5, -6, 0], [-1001, 1000, 123456]]
)


def committed(function, dtype, width=3):
    """A pack whose trunk begins with a function of its inputs, of one task."""
    inputs = keras.Input((width,), dtype=dtype, name="given")
    features = layers.Flatten()(ops.cast(function(inputs), "float32"))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(4)(features)))
    net.add_task("one", layers.Dense(3))
    net.commit()
    return net


def assert_same(net, path, x):
    """Exports a task, and compares its answers to inputs with those of Keras."""
    export_onnx(net, "one", path)
    np.testing.assert_allclose(answer(path, x), logits(net.task_model("one"), x), 1e-4, 1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.one_hot(x, 5),
        lambda x: ops.one_hot(x, 5, axis=1),
        lambda x: ops.one_hot(x, 5, dtype="int32"),
        lambda x: ops.one_hot(x, 5, dtype="bool"),
        lambda x: ops.multi_hot(x, 5),
        lambda x: layers.CategoryEncoding(5, "one_hot")(x[:, :1]),
    ],
    ids=["last axis", "first axis", "integers", "booleans", "multi-hot", "category"],
)
def test_an_index_that_has_no_place_is_hot_nowhere(function, tmp_path):
    x = INTEGERS.astype("int32")
    assert_same(committed(function, "int32"), tmp_path / "m.onnx", x)


@pytest.mark.parametrize("dtype", ["int32", "int64", "int16", "uint8"])
@pytest.mark.parametrize("function", [ops.mod, ops.floor_divide])
@pytest.mark.parametrize("divisor", [7, -7])
def test_integers_are_divided_as_by_keras(divisor, function, dtype, tmp_path):
    """The quotient is rounded down, and the remainder has the sign of the divisor."""
    if dtype == "uint8":
        x, divisor = np.array([[0, 6, 7], [8, 250, 255]], dtype), abs(divisor)
    elif dtype == "int16":
        x = np.clip(INTEGERS, -(2**15), 2**15 - 1).astype(dtype)
    else:
        x = np.array([*INTEGERS, [2**31 - 1, -(2**31), 14]], dtype)
    assert_same(committed(lambda x: function(x, divisor), dtype), tmp_path / "m.onnx", x)


@pytest.mark.parametrize("function", [ops.mod, ops.floor_divide])
def test_floats_are_divided_as_by_keras(function, tmp_path):
    x = np.array([[-7.2, 7.2, -0.5], [0.5, -3.1, 100.7]], "float32")
    assert_same(committed(lambda x: function(x, 3.0), "float32"), tmp_path / "m.onnx", x)


@pytest.mark.parametrize("function", ["celu", "elu", "selu"])
def test_exponentials_less_one_are_made_of_what_there_is(function, tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    assert_same(committed(layers.Activation(function), "float32"), tmp_path / "m.onnx", x)


@pytest.mark.parametrize(
    "function", [lambda x: ops.logaddexp(x, 0.5 * x), lambda x: ops.log1p(ops.abs(x))]
)
def test_logarithms_of_one_more_are_made_of_what_there_is(function, tmp_path):
    x = 9 * np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    assert_same(committed(function, "float32"), tmp_path / "m.onnx", x)


@pytest.mark.parametrize("opset", [13, 18])
def test_a_head_may_end_in_the_place_of_the_largest(opset, tmp_path):
    """Keras takes -0.0 for less than 0.0."""
    features = keras.Input((3,))
    net = packnet_tf.PackNet(keras.Model(features, layers.Dense(3, use_bias=False)(features)))
    model = net.add_task("one", keras.Model(features, ops.argmax(features, axis=-1)))
    model.trunk.layers[-1].packed_weights["kernel"].trainable.assign(np.eye(3))
    net.commit()
    export_onnx(net, "one", tmp_path / "m.onnx", opset=opset)
    x = np.array([[1, 3, 2], [-2, -1, -3], [np.inf, 0, 1], [-np.inf, -2, -np.inf]], "float32")
    assert np.array_equal(answer(tmp_path / "m.onnx", x[:2]), [1, 1])
    assert np.array_equal(answer(tmp_path / "m.onnx", x[:2]), logits(net.task_model("one"), x[:2]))


def test_the_sign_of_zero_is_the_sign_of_its_reciprocal(tmp_path):
    x = np.array([[0.0, -0.0, 1.0], [-1.0, np.inf, -np.inf], [1e-30, -1e-30, -3.0]], "float32")
    net = committed(ops.signbit, "float32")
    assert_same(net, tmp_path / "m.onnx", x)
    assert "Bitcast" not in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


@pytest.mark.parametrize("size", [4, None], ids=["fixed", "any size"])
@pytest.mark.parametrize("kind", [layers.Conv2DTranspose, layers.Conv3DTranspose])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2, "strides": 3},
        {"kernel_size": 2, "strides": 3, "padding": "same"},
        {"kernel_size": 3, "strides": 2, "output_padding": 1},
        {"kernel_size": 3, "strides": 2, "padding": "same"},
        {"kernel_size": 3, "dilation_rate": 2},
    ],
    ids=["wide strides", "same", "output padding", "narrow strides", "dilated"],
)
def test_transposed_convolutions_answer_beyond_their_kernels_too(options, kind, size, tmp_path):
    """Where no kernel reaches, the answer is the bias."""
    axes = 2 if kind is layers.Conv2DTranspose else 3
    inputs = keras.Input((*[size] * axes, 2))
    outputs = kind(3, **options, bias_initializer="random_normal")(inputs)
    net = packnet_tf.PackNet(keras.Model(inputs, outputs))
    net.add_task("one", layers.ReLU())
    net.commit()
    shape = [1, *range(4, 4 + axes), 2] if size is None else [1, *[size] * axes, 2]
    assert_same(
        net, tmp_path / "m.onnx", np.random.default_rng(0).normal(size=shape).astype("float32")
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.where(x > 0, ops.log(x), x),
        lambda x: ops.where(x >= 0, ops.sqrt(x), x),
        lambda x: ops.where(
            ops.sum(x, -1, keepdims=True) > 0, x / ops.sum(x, -1, keepdims=True), 0.0
        ),
        lambda x: ops.where(x > 10, x, ops.log1p(ops.exp(x))),
        ops.sinc,
    ],
    ids=["log", "sqrt", "quotient", "exp", "sinc"],
)
def test_what_is_not_selected_may_be_infinite(function, tmp_path):
    x = np.array([[0, 0, 0], [-1, 2, 0.5], [-3, -2, -1], [1000, 1, 0]], "float32")
    assert_same(committed(function, "float32"), tmp_path / "m.onnx", x)


def test_convolutions_of_volumes_have_groups(tmp_path):
    inputs = keras.Input((4, 4, 4, 4))
    outputs = layers.Flatten()(layers.Conv3D(4, 3, groups=2)(inputs))
    net = packnet_tf.PackNet(keras.Model(inputs, outputs))
    net.add_task("one", layers.Dense(3))
    net.commit()
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 4)).astype("float32")
    assert_same(net, tmp_path / "m.onnx", x)
