"""Dead channels go from exported graphs, and answers stay."""

import keras
import numpy as np
import onnx
import onnx.parser
from keras import layers
from small_graphs import (
    PADDED,
    between,
    dead,
    floats,
    graph,
    simplified,
    stays,
    whole,
)

import packnet_tf
from packnet_tf.export import export_onnx


def test_a_channel_that_is_0_everywhere_goes_with_all_its_weights():
    removed, left = simplified(between("k = Relu(h)", extra=PADDED))
    assert (removed.channels, removed.weights) == (1, 2 + 1 + 2 * 9)
    np.testing.assert_array_equal(left["w"], whole(3, 2, 1, 1)[[0, 2]])
    np.testing.assert_array_equal(left["b"], [1, 2])
    np.testing.assert_array_equal(left["v"], whole(2, 3, 3, 3, seed=1)[:, [0, 2]])
    np.testing.assert_array_equal(left["c"], whole(2, seed=2))


def test_a_channel_that_is_another_constant_moves_into_the_next_bias():
    removed, left = simplified(between("k = Relu(h)", bias=(1, 5, 2)))
    assert (removed.channels, removed.weights) == (1, 2 + 1 + 2 * 9)
    added = 5 * whole(2, 3, 3, 3, seed=1)[:, 1].sum((1, 2))
    np.testing.assert_array_equal(left["c"], whole(2, seed=2) + added)


def test_a_constant_stays_where_the_next_convolution_pads():
    assert stays(between("k = Relu(h)", bias=(1, 5, 2), extra=PADDED))
    assert stays(between("k = Relu(h)", bias=(1, 5, 2), extra='<auto_pad = "SAME_UPPER">'))


def test_a_constant_makes_a_bias_where_there_is_none():
    kernels = {"w": dead(whole(3, 2, 1, 1), 1), "v": whole(2, 3, 3, 3, seed=1)}
    model = graph("h = Conv(x, w, b) y = Conv(h, v)", "N,2,M,M", b=floats(1, 5, 2), **kernels)
    removed, left = simplified(model)
    assert (removed.channels, removed.weights) == (1, 2 + 1 + 2 * 9 - 2)
    np.testing.assert_array_equal(left["y_input2"], 5 * kernels["v"][:, 1].sum((1, 2)))


def test_a_channel_that_no_weight_reads_goes():
    model = graph(
        "h = Conv(x, w) k = Relu(h) y = Conv<pads = [1, 1, 1, 1]>(k, v)",
        "N,2,4,4",
        w=whole(3, 2, 1, 1),
        v=dead(whole(2, 3, 3, 3), 0, axis=1),
    )
    removed, left = simplified(model)
    assert (removed.channels, removed.weights) == (1, 2 + 2 * 9)
    np.testing.assert_array_equal(left["w"], whole(3, 2, 1, 1)[[1, 2]])


def test_a_channel_stays_that_one_of_two_layers_reads():
    kernels = {"w": whole(3, 2, 1, 1), "v": dead(whole(2, 3, 1, 1), 0, axis=1)}
    nodes = "h = Conv(x, w) p = Conv(h, v) q = Conv(h, u) y = Add(p, q)"
    assert stays(graph(nodes, "N,2,4,4", **kernels, u=whole(2, 3, 1, 1)))
    model = graph(nodes, "N,2,4,4", **kernels, u=dead(whole(2, 3, 1, 1), 0, 2, axis=1))
    assert simplified(model)[0].channels == 1


def test_what_is_dead_once_others_are_gone_goes_too():
    """The second layer's channel 0 reads only channel 1 of the first, which is 0."""
    second = whole(3, 3, 1, 1)
    second[0, [0, 2]] = 0
    model = graph(
        "h = Conv(x, w) i = Relu(h) j = Conv(i, v) k = Relu(j) y = Conv(k, u)",
        "N,2,4,4",
        w=dead(whole(3, 2, 1, 1), 1),
        v=second,
        u=whole(2, 3, 1, 1),
    )
    removed, left = simplified(model)
    assert removed.channels == 2
    np.testing.assert_array_equal(left["v"], second[1:][:, [0, 2]])


def test_one_channel_of_a_dead_layer_stays():
    model = graph(
        "h = Conv(x, w) k = Relu(h) y = Conv(k, v)",
        "N,2,4,4",
        w=np.zeros((3, 2, 1, 1), np.float32),
        v=whole(2, 3, 1, 1),
    )
    removed, left = simplified(model)
    assert removed.channels == 2
    assert left["w"].shape == (1, 2, 1, 1)


def silence(trunk, name, norm=None, **channels):
    """Sets kernels to 0, and what comes after to the value: `silence(trunk, "conv", c3=-1.0)`."""
    layer = trunk.get_layer(name)
    kernel, *bias = [keras.ops.convert_to_numpy(v).copy() for v in layer.weights]
    shift = trunk.get_layer(norm).beta if norm else layer.bias
    values = keras.ops.convert_to_numpy(shift).copy()
    for channel, value in channels.items():
        number = int(channel[1:])
        if isinstance(layer, layers.DepthwiseConv2D):
            kernel[..., number, :] = 0
        else:
            kernel[..., number] = 0
        values[number] = value
    layer.set_weights([kernel, *bias])
    shift.assign(values)


def exported(trunk, path):
    """A task that computes with the trunk as it is, as an ONNX model."""
    net = packnet_tf.PackNet(trunk)
    net.add_task("one", layers.Dense(3, bias_initializer="ones", name="logits"))
    net.prune(0.0)
    net.commit()
    export_onnx(net, "one", path)
    return onnx.load(path)


def test_a_network_with_flatten_and_dense_layers_shrinks(tmp_path):
    trunk = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="norm1"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="relu", name="fc1"),
            layers.Dense(7, activation="relu", bias_initializer="ones", name="fc2"),
        ]
    )
    silence(trunk, "conv1", "norm1", c1=-1.0, c2=0.0, c3=1.0)  # 3 is padded: it stays
    silence(trunk, "conv2", c0=-1.0, c5=0.5)
    silence(trunk, "fc1", c4=0.0, c8=2.0)
    fc2 = trunk.get_layer("fc2")
    kernel, bias = fc2.get_weights()
    kernel[1] = 0  # nobody reads unit 1 of fc1
    fc2.set_weights([kernel, bias])
    removed, _ = simplified(exported(trunk, tmp_path / "task.onnx"), rtol=1e-6)
    assert removed.channels == 2 + 2 + 3
    conv1 = 2 * (27 + 2)  # kernel, scale and shift
    conv2 = 8 * 6 * 9 + 8 - (6 * 4 * 9 + 6)
    assert removed.weights == conv1 + conv2 + (32 * 10 + 10 - (24 * 7 + 7)) + 3 * 7


def test_a_mobilenet_shrinks(tmp_path):
    trunk = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    # A depthwise convolution follows that pads: 3 stays.
    silence(trunk, "block_1_expand", "block_1_expand_BN", c0=-1.0, c2=0.0, c3=1.0)
    silence(trunk, "block_1_depthwise", "block_1_depthwise_BN", c5=1.0, c6=-1.0)
    silence(trunk, "expanded_conv_project", "expanded_conv_project_BN", c1=0.5)
    silence(trunk, "block_1_project", "block_1_project_BN", c4=0.0)  # a residual reads it
    silence(trunk, "Conv_1", "Conv_1_bn", **{f"c{channel}": 2.0 for channel in range(100)})
    model = exported(trunk, tmp_path / "task.onnx")
    removed, left = simplified(model, rtol=1e-6)
    assert removed.channels == 2 + 2 + 1 + 100
    shapes = {name: value.shape for name, value in left.items()}
    assert shapes["expanded_conv_project/kernel"] == (7, 16, 1, 1)
    assert shapes["block_1_expand/kernel"] == (44, 7, 1, 1)
    assert shapes["block_1_depthwise/kernel"] == (44, 1, 3, 3)
    assert shapes["block_1_project/kernel"] == (8, 44, 1, 1)
    assert shapes["Conv_1/kernel"] == (1180, 112, 1, 1)
    assert shapes["logits/kernel"] == (1180, 3)
