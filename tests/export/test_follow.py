"""Channels are followed through a graph, and stay where something else reads them."""

import numpy as np
import onnx
import onnx.parser
import pytest
from small_graphs import IMAGE, PADDED, between, dead, floats, graph, ints, simplified, stays, whole


@pytest.mark.parametrize(
    ("nodes", "bias"),
    [
        ("k = Relu(h)", -2),
        ("k = Clip(h, low, high)", -2),
        ("k = LeakyRelu<alpha = 0.5>(h)", 0),
        ("k = PRelu(h, slope)", 0),
        ("k = Elu(h)", 0),
        ("k = HardSigmoid<alpha = 0.5, beta = 0.5>(h)", -3),
        ("k = Identity(h)", 0),
        ("j = Mul(h, scale) k = Add(shift, j)", -3),
        ("j = Sub(h, shift) k = Div(j, scale)", 6),
        ("k = BatchNormalization<epsilon = 0.0>(h, four, sixes, mean, four)", -2),
        ("j = Neg(h) k = Max(j, low)", 2),
    ],
    ids=lambda value: value.split("(")[0].split()[-1] if isinstance(value, str) else str(value),
)
def test_a_channel_is_followed_through_what_acts_on_each_alone(nodes, bias):
    constants = {
        "low": np.float32(0),
        "high": np.float32(6),
        "slope": floats(1, 2, 4).reshape(3, 1, 1),
        "scale": floats(1, 2, 4).reshape(1, 3, 1, 1),
        "shift": floats(1, 6, 2).reshape(3, 1, 1),
        "four": floats(4, 4, 4),
        "sixes": floats(6, 6, 6),
        "mean": floats(1, 1, 1),
    }
    model = between(nodes, bias=(1, bias, 2), extra=PADDED, **constants)
    removed, left = simplified(model, rtol=1e-6 if "Elu(" in nodes else 0.0)
    assert removed.channels == 1
    assert all(3 not in left[name].shape for name in constants.keys() & left.keys())


def test_a_value_that_is_not_a_whole_number_moves_as_it_was_computed():
    removed, left = simplified(between("k = Sigmoid(h)", bias=(1, 1, 2)), rtol=1e-6)
    assert removed.channels == 1
    added = whole(2, 3, 3, 3, seed=1)[:, 1].sum((1, 2)) / (1 + np.exp(-1))
    np.testing.assert_allclose(left["c"], whole(2, seed=2) + added, rtol=1e-6)


def test_a_channel_goes_that_a_norm_scales_by_0():
    model = graph(
        "h = Conv(x, w) k = Mul(h, scale) y = Conv(k, v)",
        "N,2,4,4",
        w=whole(3, 2, 1, 1),
        scale=floats(1, 0, 2).reshape(1, 3, 1, 1),
        v=whole(2, 3, 1, 1),
    )
    assert simplified(model)[0].channels == 1


def test_the_axis_of_channels_is_followed_through_transposes():
    """In NHWC, constants of shape (C,) belong to channels; here there are as many columns."""
    model = between(
        "i = Transpose<perm = [0, 2, 3, 1]>(h) j = Add(i, shift) l = Relu(j)"
        "k = Transpose<perm = [0, 3, 1, 2]>(l)",
        bias=(1, 2, 3),
        extra=PADDED,
        shift=floats(4, -3, 5),
    )
    removed, left = simplified(model)
    assert removed.channels == 1
    np.testing.assert_array_equal(left["shift"], [4, 5])
    columns = between("j = Add(h, shift) k = Relu(j)", extra=PADDED, shift=whole(4))
    assert stays(columns)


@pytest.mark.parametrize(
    ("nodes", "bias", "goes"),
    [
        ("k = MaxPool<kernel_shape = [2, 2], pads = [1, 1, 1, 1]>(h)", 5, True),
        ("k = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 1, 1]>(h)", 4, True),
        ("k = AveragePool<kernel_shape = [2, 2], count_include_pad = 1>(h)", 4, True),
        (
            "k = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 1, 1], count_include_pad = 1>(h)",
            4,
            False,
        ),
        (
            "k = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 1, 1], count_include_pad = 1>(h)",
            0,
            True,
        ),
        ("k = GlobalAveragePool(h)", 4, True),
        ("k = GlobalMaxPool(h)", 4, True),
        ("k = ReduceMean<axes = [-2, 3]>(h)", 4, True),
        ("k = Pad(h, pads)", 0, True),
        ("k = Pad(h, pads)", 4, False),
        ("k = Pad(h, pads, four)", 0, False),
        ('k = Pad<mode = "edge">(h, pads)', 0, False),
        ("k = Pad(h, over)", 0, False),
    ],
)
def test_a_constant_is_followed_through_pooling_and_padding(nodes, bias, goes):
    constants = {
        "pads": ints(0, 0, 1, 1, 0, 0, 0, 0),
        "over": ints(0, 1, 0, 0, 0, -1, 0, 0),
        "four": np.float32(4),
    }
    model = between(nodes, bias=(1, bias, 2), window=1, **constants)
    if goes:
        assert simplified(model)[0].channels == 1
    else:
        assert stays(model)


def test_a_depthwise_convolution_loses_the_kernels_of_the_channel():
    """Two kernels a channel; those of channel 1 are not 0, and what they read is."""
    model = graph(
        "h = Conv(x, w) j = Conv<group = 3, pads = [1, 1, 1, 1]>(h, d, b) k = Relu(j)"
        "y = Conv(k, v)",
        "N,2,4,4",
        w=dead(whole(3, 2, 1, 1), 1),
        d=whole(6, 1, 3, 3),
        b=floats(1, 2, -1, 0, 3, 4),
        v=whole(2, 6, 1, 1),
    )
    removed, left = simplified(model)
    assert (removed.channels, removed.weights) == (1, 2 + 2 * 9 + 2 + 2 * 2)
    np.testing.assert_array_equal(left["b"], [1, 2, 3, 4])
    assert left["d"].shape == (4, 1, 3, 3)


@pytest.mark.parametrize(("extra", "goes"), [("", True), (", pads = [1, 1, 1, 1]", False)])
def test_a_depthwise_convolution_that_pads_ends_a_constant(extra, goes):
    model = graph(
        f"h = Conv(x, w, b) k = Conv<group = 2{extra}>(h, d) y = Conv(k, v)",
        "N,2,M,M",
        w=dead(whole(2, 2, 1, 1), 1),
        b=floats(1, 3),
        d=whole(2, 1, 3, 3),
        v=whole(2, 2, 1, 1),
    )
    if goes:
        removed, left = simplified(model)
        assert (removed.channels, left["d"].shape) == (1, (1, 1, 3, 3))
    else:
        assert stays(model)


def test_a_channel_goes_whose_depthwise_kernel_is_0():
    model = graph(
        "h = Conv(x, w) j = Conv<group = 3, pads = [1, 1, 1, 1]>(h, d, b) k = Relu(j)"
        "y = Conv(k, v)",
        "N,2,4,4",
        w=whole(3, 2, 1, 1),
        d=dead(whole(3, 1, 3, 3), 2),
        b=floats(1, 2, 3),
        v=whole(2, 3, 1, 1),
    )
    removed, left = simplified(model)
    assert removed.channels == 1
    np.testing.assert_array_equal(left["w"], whole(3, 2, 1, 1)[:2])
    np.testing.assert_array_equal(left["y_input2"], 3 * whole(2, 3, 1, 1)[:, 2, 0, 0])


DENSE = {"w": dead(whole(5, 4), 1, 2, axis=1), "b": floats(1, -2, 3, 4), "v": whole(4, 3)}
TURNED = {"w": DENSE["w"].T.copy(), "v": DENSE["v"].T.copy()}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ("g = MatMul(x, w) h = Add(b, g) k = Relu(h) i = MatMul(k, v) y = Add(i, c)", DENSE),
        ("h = Gemm(x, w, b) k = Relu(h) y = Gemm(k, v, c)", DENSE),
        ("h = Gemm<transB = 1>(x, w, b) k = Relu(h) y = Gemm<transB = 1>(k, v, c)", TURNED),
    ],
)
def test_units_of_dense_layers_go(nodes, constants):
    """Unit 1 is 0 behind the activation, unit 2 is 3."""
    model = graph(nodes, "N,3", "N,5", **{**DENSE, **constants}, c=floats(1, 2, 3))
    removed, left = simplified(model)
    assert (removed.channels, removed.weights) == (2, 2 * 5 + 2 + 2 * 3)
    np.testing.assert_array_equal(left["b"], [1, 4])
    np.testing.assert_array_equal(left["c"], [1, 2, 3] + 3 * DENSE["v"][2])


def test_a_dense_layer_acts_on_the_last_axis():
    nodes = "g = MatMul(x, w) h = Add(g, b) k = Relu(h) y = MatMul(k, v)"
    removed, _ = simplified(graph(nodes, "N,4,3", "N,4,5", **DENSE))
    assert removed.channels == 1  # unit 2 is 3, and the next layer has no bias


def test_a_scaled_gemm_stays():
    for scale in ("alpha = 2.0", "beta = 2.0"):
        nodes = f"h = Gemm(x, w, b) k = Relu(h) y = Gemm<{scale}>(k, v)"
        assert stays(graph(nodes, "N,3", "N,5", **DENSE))


FLATTENED = {
    "channels last": "t = Transpose<perm = [0, 2, 3, 1]>(k) f = Reshape(t, flat)",
    "channels first": "f = Reshape(k, flat)",
    "a fixed number of features": "f = Reshape(k, features)",
    "Flatten": "f = Flatten(k)",
    "a size that is computed": """
        s = Shape(k) n = Slice(s, zero, one) m = Concat<axis = 0>(n, size)
        t = Transpose<perm = [0, 2, 3, 1]>(k) f = Reshape(t, m)""",
}


@pytest.mark.parametrize("how", FLATTENED)
def test_a_channel_goes_with_all_the_features_that_flatten_made_of_it(how):
    """Channel 0 is 0 and channel 2 is 5 in all of 4 x 4 places."""
    kernel = whole(48, 2)
    model = graph(
        f"h = Conv(x, w, b) k = Relu(h) {FLATTENED[how]} i = MatMul(f, v) y = Add(i, c)",
        "N,2",
        w=dead(whole(3, 2, 1, 1), 0, 2),
        b=floats(-1, 2, 5),
        v=kernel,
        c=floats(1, 2),
        flat=ints(0, -1),
        features=ints(-1, 48),
        zero=ints(0),
        one=ints(1),
        size=ints(48),
    )
    removed, left = simplified(model)
    assert (removed.channels, removed.weights) == (2, 2 * 2 + 2 + 2 * 16 * 2)
    last = how in ("channels last", "a size that is computed")
    kernel = kernel.reshape(16, 3, 2) if last else kernel.reshape(3, 16, 2).swapaxes(0, 1)
    np.testing.assert_array_equal(left["v"], kernel[:, 1])
    np.testing.assert_array_equal(left["c"], [1, 2] + 5 * kernel[:, 2].sum(0))
    assert not {"Shape", "Slice", "Concat"} & {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("target", "y"),
    [
        (ints(0, -1, 2), "N,M,2"),  # rows of two entries, of channels 0 1, 2 0, 1 2, ...
        (ints(-1, 3), "M,3"),  # entries are channels, and the batch is mixed in
    ],
)
def test_channels_stay_where_a_reshape_mixes_them(target, y):
    model = graph(
        "h = Conv(x, w) t = Transpose<perm = [0, 2, 3, 1]>(h) f = Reshape(t, s) y = MatMul(f, v)",
        y.replace("3", "2"),
        w=dead(whole(3, 2, 1, 1), 0),
        v=whole(int(target[-1]), 2),
        s=target,
    )
    assert stays(model)


def test_channels_stay_where_sizes_are_not_known():
    model = graph(
        "h = Conv(x, w) f = Reshape(h, flat) y = MatMul(f, v)",
        "N,2",
        "N,2,H,W",
        w=dead(whole(3, 2, 1, 1), 0),
        v=whole(48, 2),
        flat=ints(0, -1),
    )
    assert stays(model)


@pytest.mark.parametrize(
    ("nodes", "y"),
    [
        ("y = Relu(h)", "N,3,4,4"),  # the output of the graph
        ("k = Conv(x, u) i = Add(h, k) y = Conv(i, v)", IMAGE),  # a residual
        ("k = Conv(x, u) i = Concat<axis = 1>(h, k) y = Conv(i, wide)", IMAGE),
        ("k = Softmax<axis = 1>(h) y = Conv(k, v)", IMAGE),
        ("k = ReduceMean<axes = [1]>(h) y = Conv(k, narrow)", IMAGE),
        ("k = Add(h, whole) y = Conv(k, v)", IMAGE),  # a constant that differs between places
        ("k, i = MaxPool<kernel_shape = [1, 1]>(h) y = Conv(k, v)", IMAGE),
        ("t = Transpose<perm = [0, 1, 3, 2]>(h) k = MatMul(t, square) y = Conv(k, v)", IMAGE),
        ("y = Conv(h, v) z = Shape(h)", IMAGE),  # z is an output too
        ("o = Cast<to = 9>(one) y = If(o)<then_branch = a () => (float[N,3,4,4] p)"
         "{p = Neg(h)}, else_branch = e () => (float[N,3,4,4] q) {q = Relu(h)}>", "N,3,4,4"),
    ],
)  # fmt: skip
def test_channels_stay_where_something_else_reads_them(nodes, y):
    model = graph(
        f"h = Conv(x, w) {nodes}",
        y,
        w=dead(whole(3, 2, 1, 1), 1),
        u=whole(3, 2, 1, 1),
        v=whole(2, 3, 1, 1),
        wide=whole(2, 6, 1, 1),
        narrow=whole(2, 1, 1, 1),
        whole=whole(1, 3, 4, 4),
        square=whole(4, 4),
        one=np.float32(1),
    )
    if "z =" in nodes:
        model.graph.output.append(onnx.helper.make_tensor_value_info("z", 7, [4]))
    assert stays(model)


def test_channels_stay_that_a_grouped_convolution_reads():
    model = graph(
        "h = Conv(x, w) k = Conv<group = 2>(h, g) y = Conv(k, v)",
        "N,2,4,4",
        w=dead(whole(4, 2, 1, 1), 1),
        g=dead(whole(4, 2, 1, 1), 2),
        v=whole(2, 4, 1, 1),
    )
    assert stays(model)


def test_a_kernel_that_two_layers_read_stays():
    model = graph(
        "h = Conv(x, w) k = Relu(h) i = Conv(k, w) y = Conv(i, v)",
        IMAGE,
        w=dead(whole(2, 2, 1, 1), 1),
        v=whole(2, 2, 1, 1),
    )
    assert stays(model)


def test_weights_that_a_caller_may_replace_stay():
    model = between("k = Relu(h)")
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [3, 2, 1, 1]))
    assert stays(model)


def test_a_bias_that_two_layers_share_is_copied_for_the_one_that_changes():
    model = graph(
        "h = Conv(x, w, b) k = Relu(h) i = Conv(k, v, b) y = Relu(i)",
        "N,3,4,4",
        w=dead(whole(3, 2, 1, 1), 1),
        v=whole(3, 3, 1, 1),
        b=floats(1, -1, 2),
    )
    removed, left = simplified(model)
    assert (removed.channels, removed.weights) == (1, 2 + 3 - 2)
    np.testing.assert_array_equal(left["b"], [1, -1, 2])
    np.testing.assert_array_equal(left["h_input2"], [1, 2])


def test_a_gate_and_what_it_gates_lose_a_channel_together():
    """Squeeze-and-excitation: the gate of channel 1 is not 0, but what it gates is."""
    model = graph(
        "h = Conv(x, w) k = Relu(h) m = GlobalMaxPool(k) n = Reshape(m, one) s = Conv(n, u)"
        "e = Relu(s) g = Conv(e, r) j = Mul(k, g) y = Conv<pads = [1, 1, 1, 1]>(j, v)",
        "N,2,4,4",
        w=dead(whole(3, 2, 1, 1), 1),
        u=whole(2, 3, 1, 1),
        r=whole(3, 2, 1, 1),
        v=whole(2, 3, 3, 3),
        one=ints(-1, 3, 1, 1),
    )
    removed, left = simplified(model)
    assert removed.channels == 2
    assert removed.weights == 2 + 2 + 2 + 2 * 9
    np.testing.assert_array_equal(left["one"], [-1, 2, 1, 1])


def test_axes_that_are_an_input_are_read():
    """As ReduceMean has them from operator set 18 on."""
    nodes = "k = ReduceMean<keepdims = 0>(h, axes) y = Gemm<transB = 1>(k, v, c)"
    model = graph(
        f"h = Conv(x, w, b) {nodes}",
        "N,2",
        opset=18,
        w=dead(whole(3, 2, 1, 1), 1),
        b=floats(1, 4, 2),
        v=whole(2, 3),
        c=whole(2),
        axes=ints(2, -1),
    )
    removed, left = simplified(model)
    assert (removed.channels, left["v"].shape) == (1, (2, 2))


def test_an_activation_made_of_several_nodes_is_followed():
    model = between("g = Sigmoid(h) k = Mul(h, g)", extra=PADDED)
    assert simplified(model, rtol=1e-6)[0].channels == 1


def test_shapes_that_were_noted_are_forgotten():
    model = between("k = Relu(h)")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("k", 1, ["N", 3, 4, 4]))
    assert simplified(model)[0].channels == 1
    assert not model.graph.value_info
