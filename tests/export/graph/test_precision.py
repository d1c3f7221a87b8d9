"""An exported graph in half precision and in 8 bits."""

import logging
import sys

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from onnx import helper, numpy_helper

from helpers.pack_helpers import conv_trunk, run_python
from helpers.precision_graphs import (
    LOWER,
    TRUNKS,
    answer,
    constants,
    cosine,
    dequantized,
    exported,
    feed,
    graph_of,
    lower,
    mobile_trunk,
)
from packnet_tf.export.graph.precision import PRECISIONS, to_precision


@pytest.fixture
def model():
    return graph_of("conv")


@pytest.mark.parametrize("trunk", sorted(TRUNKS))
@pytest.mark.parametrize("kind", LOWER)
def test_answers_stay_close_and_the_graph_is_valid(kind, trunk):
    model = graph_of(trunk)
    made, x = lower(model, kind), feed(model, 64)
    onnx.checker.check_model(made, full_check=True)
    assert {node.domain for node in made.graph.node} == {""}  # runs outside onnxruntime too
    expected, found = answer(model, x), answer(made, x)
    assert found.shape == expected.shape
    least = {"float16": 0.99999, "int8": 0.998, "calibrated int8": 0.99}[kind]
    assert cosine(expected, found) > least
    assert np.abs(found - expected).max() > 0


@pytest.mark.parametrize("trunk", sorted(TRUNKS))
@pytest.mark.parametrize("kind", LOWER)
def test_a_weight_that_is_0_stays_exactly_0(kind, trunk):
    model = graph_of(trunk)
    weights = [w for w in constants(model).values() if w.ndim > 1 and w.dtype == np.float32]
    sparse = [weight for weight in weights if 0.2 < np.mean(weight == 0) < 0.8]
    assert sparse
    found = dequantized(lower(model, kind)).values()
    for weight in sparse:
        same = [other for other in found if other.shape == weight.shape]
        fitting = [other for other in same if (other[weight == 0] == 0).all()]
        # Few of the others are so small that they are rounded to 0.
        assert max(np.mean(other[weight != 0] != 0) for other in fitting) > 0.9


@pytest.mark.parametrize("trunk", sorted(TRUNKS))
@pytest.mark.parametrize("kind", LOWER)
def test_no_weight_is_left_in_float32(kind, trunk):
    before, after = graph_of(trunk), lower(graph_of(trunk), kind)
    assert float_weights(before)
    assert float_weights(after) == []


def float_weights(model):
    """Kernels and tables in float32; biases and normalisations of attention have axes as well."""
    kinds = ("Conv", "ConvTranspose", "Gather", "Gemm", "Loop", "LSTM", "MatMul")
    read = {name for node in model.graph.node if node.op_type in kinds for name in node.input}
    weights = [(name, value) for name, value in constants(model).items() if name in read]
    return [name for name, w in weights if w.dtype == np.float32 and w.ndim > 1]


def test_sizes_are_a_half_and_a_quarter(tmp_path):
    inputs = keras.Input((8, 8, 16), name="image")
    x = layers.Conv2D(256, 3, name="conv")(inputs)
    trunk = keras.Model(inputs, layers.Dense(512)(layers.GlobalAveragePooling2D()(x)))
    model = exported(trunk, tmp_path)
    sizes = {kind: lower(model, kind).ByteSize() / model.ByteSize() for kind in LOWER}
    assert 0.49 < sizes["float16"] < 0.52
    assert 0.25 < sizes["int8"] < 0.28
    assert 0.25 < sizes["calibrated int8"] < 0.28


def test_float32_is_the_graph_itself(model):
    assert to_precision(model, "float32") is model


@pytest.mark.parametrize("kind", LOWER)
def test_all_but_the_precision_is_as_it_was(kind, tmp_path):
    model = exported(conv_trunk(), tmp_path, metadata={"made_by": "me", "a": "b"})
    model.producer_version, model.graph.doc_string = "3", "about the graph"
    before = model.SerializeToString()
    made = lower(model, kind)
    assert model.SerializeToString() == before  # the graph that was given is not touched
    assert list(made.metadata_props) == list(model.metadata_props)
    assert list(made.opset_import) == list(model.opset_import)
    for name in ("doc_string", "producer_name", "producer_version", "ir_version"):
        assert getattr(made, name) == getattr(model, name)
    for name in ("name", "doc_string", "input", "output"):
        assert getattr(made.graph, name) == getattr(model.graph, name)
    for count in (1, 7):
        assert answer(made, feed(model, count)).shape == (count, 3)


def test_the_same_graph_gives_the_same_bytes_in_every_process(tmp_path):
    model = graph_of("mobile")
    first = {kind: lower(model, kind).SerializeToString() for kind in LOWER}
    assert {kind: lower(model, kind).SerializeToString() for kind in LOWER} == first
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "feed.npz", **feed(model, 64, 1))
    code = """
        import sys, numpy, onnx
        from packnet_tf.export.graph.precision import to_precision
        graph, feed, *kinds = sys.argv[1:]
        for name in kinds:
            *calibrated, kind = name.split()
            feeds = [dict(numpy.load(feed))] if calibrated else None
            made = to_precision(onnx.load(graph), kind, feeds)
            open(f"{graph} {name}", "wb").write(made.SerializeToString())
        assert not {"torch", "sympy", "tensorflow", "keras"} & set(sys.modules)
    """
    for seed in "12":
        paths = (tmp_path / "m.onnx", tmp_path / "feed.npz")
        done = run_python(code, *paths, *LOWER, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        for kind, expected in first.items():
            assert (tmp_path / f"m.onnx {kind}").read_bytes() == expected


@pytest.mark.parametrize("kind", LOWER)
@pytest.mark.parametrize("opset", [13, 18])
def test_other_operator_sets_do_too(opset, kind, tmp_path):
    model = exported(mobile_trunk(), tmp_path, opset=opset)
    made = lower(model, kind)
    onnx.checker.check_model(made, full_check=True)
    assert cosine(answer(model, feed(model)), answer(made, feed(model))) > 0.99


@pytest.mark.parametrize("kind", LOWER)
def test_zero_padding_before_pooling_is_still_zero(kind, tmp_path):
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(3, 3, bias_initializer=keras.initializers.Constant(-5.0))(inputs)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    model = exported(keras.Model(inputs, layers.Flatten()(x)), tmp_path)
    expected, x = answer(model, feed(model)), feed(model)
    assert np.abs(answer(lower(model, kind), x) - expected).max() < 0.02 * np.abs(expected).max()


# float16


def test_half_precision_is_within_the_graph_and_float32_outside(model):
    made = to_precision(model, "float16")
    kinds = {array.dtype.name for array in constants(made).values()}
    assert kinds == {"float16", "int64"}
    types = {entry.type.tensor_type.elem_type for entry in [*made.graph.input, *made.graph.output]}
    assert types == {onnx.TensorProto.FLOAT}


def matmul(*rows, divisor=1.0):
    """A graph that multiplies with a matrix and divides by a scalar."""
    weight = numpy_helper.from_array(np.array(rows, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Div", ["m", "d"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", 1, [None, len(rows)])],
        [helper.make_tensor_value_info("y", 1, [None, len(rows[0])])],
        [weight, numpy_helper.from_array(np.float32(divisor), "d")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_tiny_weights_are_rounded_and_never_raised():
    tiny = 2.0**-24  # the smallest number of half precision
    given = [0.0, -0.0, 1e-20, -1e-9, 0.49 * tiny, -0.51 * tiny, tiny, 1.5]
    made = to_precision(matmul(given), "float16")
    expected = [0.0, 0.0, 0.0, 0.0, 0.0, -tiny, tiny, 1.5]
    assert constants(made)["w"].tolist() == [expected]


def test_large_weights_become_the_largest_and_infinite_ones_stay():
    made = to_precision(matmul([1e6, -1e30, np.inf, -np.inf]), "float16")
    assert constants(made)["w"].tolist() == [[65504.0, -65504.0, np.inf, -np.inf]]


def test_an_epsilon_does_not_become_0():
    made = to_precision(matmul([0.0], divisor=1e-12), "float16")
    assert constants(made)["d"] == np.float16(2.0**-24)
    assert answer(made, {"x": np.zeros((1, 1), np.float32)}) == 0  # not 0 / 0


# int8


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_calibrated_weights_have_a_scale_per_channel_and_no_offset(reduce_range, largest):
    model = graph_of("mobile")
    made = to_precision(model, "int8", [feed(model, 64, 1)], reduce_range)
    known, channels = constants(made), {}
    for node in made.graph.node:
        weight = known.get(node.input[0])
        if node.op_type == "DequantizeLinear" and weight is not None and weight.ndim == 4:
            assert weight.dtype == np.int8
            assert np.abs(weight.astype(int)).max() == largest
            assert not known[node.input[2]].any()
            channels[weight.shape] = known[node.input[1]].size
    assert channels == {(12, 3, 3, 3): 12, (12, 1, 3, 3): 12, (12, 8, 3, 3): 8}


def test_normalisations_are_folded_into_the_convolutions_before_them():
    model = graph_of("mobile")
    assert "Mul" in {node.op_type for node in model.graph.node}
    kinds = {node.op_type for node in lower(model, "calibrated int8").graph.node}
    assert not kinds & {"Mul", "Add", "BatchNormalization"}


def test_a_channel_of_zeros_answers_its_bias():
    model = graph_of("mobile")
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    for entry in model.graph.initializer:
        if entry.name in kernels:
            value = numpy_helper.to_array(entry).copy()
            value[1] = 0
            entry.CopyFrom(numpy_helper.from_array(value, entry.name))
    expected, x = answer(model, feed(model)), feed(model)
    for kind in ("int8", "calibrated int8"):
        found = answer(lower(model, kind), x)
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_without_calibration_convolutions_answer_alike_in_any_batch(tmp_path):
    inputs = keras.Input((8, 8, 3), name="image")
    trunk = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3)(inputs)))
    made = lower(exported(trunk, tmp_path), "int8")
    kinds = {node.op_type for node in made.graph.node}
    assert "MatMulInteger" in kinds
    assert not kinds & {"ConvInteger", "DequantizeLinear"}
    # Up to the head, that is: its product takes the range of the batch.
    [cut] = [node.input[0] for node in made.graph.node if node.op_type == "DynamicQuantizeLinear"]
    made.graph.output.append(helper.make_tensor_value_info(cut, 1, None))
    del made.graph.output[0]
    x = feed(made, 8)["image"]
    assert np.allclose(answer(made, {"image": x})[:1], answer(made, {"image": x[:1]}), atol=1e-6)


def test_feeds_are_taken_in_any_number_and_dtype():
    model = graph_of("two inputs")
    whole = feed(model, 12)
    parts = [
        {"extra": whole["extra"][at].astype("float64"), "tokens": whole["tokens"][at].tolist()}
        for at in (slice(0, 5), slice(5, 12))
    ]
    made = to_precision(model, "int8", parts).SerializeToString()
    assert made == to_precision(model, "int8", [whole]).SerializeToString()


@pytest.mark.parametrize("kind", LOWER)
def test_nothing_is_printed_and_no_logging_is_changed(kind, model, capfd, caplog):
    root, level = list(logging.root.handlers), logging.root.manager.disable
    capfd.readouterr()
    lower(model, kind)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert (logging.root.handlers, logging.root.manager.disable) == (root, level)
    assert "torch" not in sys.modules


def test_what_the_tools_cannot_run_is_an_error(model):
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(RuntimeError) as caught:
        to_precision(model, "int8")
    assert "onnxruntime cannot convert the graph" in str(caught.value)
    assert "Unheard" in str(caught.value)


# Errors


@pytest.mark.parametrize("name", ["int4", "FLOAT16", None])
def test_an_unknown_precision_is_told_the_known_ones(name, model):
    with pytest.raises(ValueError) as caught:
        to_precision(model, name)
    assert str(caught.value) == (
        f"There is no precision {name!r}. Known: 'float32', 'float16', 'int8'."
    )
    assert PRECISIONS == ("float32", "float16", "int8")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_only_int8_is_calibrated(precision, model):
    with pytest.raises(ValueError) as caught:
        to_precision(model, precision, [feed(model)])
    assert str(caught.value) == (f"calibration is for 'int8', not for '{precision}'. Leave it out.")
    with pytest.raises(ValueError, match=f"reduce_range is for 'int8', not for '{precision}'"):
        to_precision(model, precision, reduce_range=True)


def test_an_empty_calibration_is_refused(model):
    with pytest.raises(ValueError) as caught:
        to_precision(model, "int8", [])
    assert str(caught.value) == (
        "calibration is empty. Give one feed or more: [{'image': images}]."
    )


def test_feeds_must_name_the_inputs(model):
    images = feed(model)["image"]
    for feeds, given in (
        ([{"image": images}, {"picture": images}], "['picture']"),
        ([{"image": images, "extra": images}], "['extra', 'image']"),
        ([{}], "[]"),
        ([images], "ndarray"),
        ({"image": images}, "str"),
    ):
        with pytest.raises(ValueError) as caught:
            to_precision(model, "int8", feeds)
        assert str(caught.value) == (
            f"A feed of calibration has {given}. Give an array for each of ['image']."
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_range_must_be_finite(bad, model):
    feeds = feed(model)
    feeds["image"][3, 2, 1, 0] = bad
    with pytest.raises(ValueError) as caught:
        to_precision(model, "int8", [feeds])
    assert str(caught.value) == ("calibration has NaN or infinite numbers. Leave those inputs out.")


@pytest.mark.parametrize("layer", ["GRU", "LSTM"])
def test_embeddings_before_a_loop_are_stored_as_integers_and_run(layer, tmp_path):
    """What the tools make of them within a Loop must not reach onnxruntime: it ends the process."""
    words = keras.Input((12,), dtype="int32")
    seen = layers.Embedding(50, 12, mask_zero=layer == "LSTM")(words)
    trunk = keras.Model(words, getattr(layers, layer)(10)(seen))
    graph = exported(trunk, tmp_path, precision="int8").graph
    assert "Loop" in {node.op_type for node in graph.node}
    [table] = [c for c in graph.initializer if list(c.dims) == [50, 12]]
    assert table.data_type == onnx.TensorProto.INT8


def test_half_precision_resizes_images_of_any_size(tmp_path):
    pictures = keras.Input((None, None, 3))
    features = layers.GlobalAveragePooling2D()(
        layers.Conv2D(6, 3)(layers.Resizing(16, 16)(pictures))
    )
    model = exported(keras.Model(pictures, features), tmp_path, precision="float16")
    assert all(0 not in tensor.dims for tensor in model.graph.initializer)


def test_half_precision_resizes_within_branches_too():
    """No scales are given where sizes are, also by a name that a branch reads from outside."""
    inside = helper.make_node("Resize", ["x", "none", "none", "size"], ["big"])
    branch = helper.make_graph(
        [inside], "branch", [], [helper.make_tensor_value_info("big", onnx.TensorProto.FLOAT, None)]
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch, else_branch=branch),
    ]
    constants = {
        "none": np.zeros(0, np.float32),
        "size": np.array([1, 1, 4, 4], np.int64),
        "zero": np.zeros((), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 2, 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.array([[[[1, 2], [3, 4]]]], np.float32)
    half = to_precision(model, "float16")
    assert np.array_equal(answer(half, {"x": x}), answer(model, {"x": x}))
