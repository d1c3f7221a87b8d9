"""Owners in a few bits each, and the operators that mask weights by them."""

import numpy as np
import onnxruntime
import pytest

from packnet_tf.export.bundle import owner_codes
from packnet_tf.export.graph.builder import GraphBuilder


@pytest.mark.parametrize(("tasks", "bits"), [(1, 2), (4, 2), (5, 4), (16, 4), (17, 8), (255, 8)])
def test_four_tasks_take_two_bits_and_sixteen_four(tasks, bits):
    assert owner_codes.width(tasks) == bits


def test_free_weights_need_no_code_of_their_own():
    owner = np.array([0, 1, 2, 4, 5], np.uint8)
    assert owner_codes.codes_of(owner, tasks=4).tolist() == [0, 0, 1, 3, 0]


def test_codes_begin_in_the_lowest_bits():
    assert owner_codes.pack_codes(np.array([1, 2, 3, 0, 1]), 2).tolist() == [0b00111001, 0b01]
    assert owner_codes.pack_codes(np.array([[1, 15], [3, 0]]), 4).tolist() == [0xF1, 0x03]
    assert owner_codes.pack_codes(np.array([True, False, True]), 1).tolist() == [0b101]
    assert owner_codes.pack_codes(np.array([200, 7]), 8).tolist() == [200, 7]


def test_a_row_of_the_table_says_which_codes_of_a_byte_are_seen():
    table = owner_codes.table(2, [0, 1])
    assert table.shape == (256, 4)
    assert table[0b11_10_01_00].tolist() == [True, True, False, False]
    assert owner_codes.table(8, [3])[:, 0].nonzero()[0].tolist() == [3]
    assert owner_codes.table(2, [0, 2, 9])[0b11_10_01_00].tolist() == [True, False, True, False]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shapes", [[(3, 5)], [(2, 8), (7,), (1, 3, 3)]])
def test_masks_and_filled_kernels_are_those_worked_out_by_numpy(bits, shapes):
    from onnx import TensorProto, helper

    rng = np.random.default_rng(bits)
    last = min(2**bits - 1, 9)
    codes = [rng.integers(0, last + 1, shape).astype(np.uint8) for shape in shapes]
    kernels = [rng.normal(size=shape).astype("float32") for shape in shapes]
    graph = helper.make_graph([], "g", [], [])
    builder = GraphBuilder(graph)
    chosen = [code for code in range(last + 1) if code != 0 and (code != 2 or last < 3)]
    packed = np.concatenate([owner_codes.pack_codes(code, bits) for code in codes])
    seen = owner_codes.masks(builder, builder.constant(packed), bits, shapes, chosen)
    expected = []
    for code, kernel, mask in zip(codes, kernels, seen, strict=True):
        shown = np.isin(code, chosen)
        name = owner_codes.masked(builder, builder.constant(kernel), mask, np.float32)
        expected.append(np.where(shown, kernel, np.float32(0)))
        values = np.arange(10, 11 + shown.sum()).astype("float32")
        spread = owner_codes.spread(builder, builder.constant(values), mask, code.shape)
        filled = builder.node("Where", mask, spread, builder.constant(kernel))
        other = kernel.copy()
        other[shown] = values[:-1]
        expected.append(other)
        for output in (name, filled):
            value = helper.make_tensor_value_info(output, TensorProto.FLOAT, list(code.shape))
            graph.output.append(value)
    builder.close()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for found, wanted in zip(session.run(None, {}), expected, strict=True):
        assert np.array_equal(found, wanted)
