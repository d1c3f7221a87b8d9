"""Promise 4: pruning is exact. Arrays worked out by hand."""

import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packnet_tf.packing import pruning
from packnet_tf.packing.pruning import check_ratio, count_by_owner, magnitude

ALL = np.ones(4, bool)
T, F = True, False


@pytest.mark.parametrize(
    ("weights", "claim", "ratio", "expected"),
    [
        pytest.param([3.0, -1.0, 2.0, 0.5], [T, T, T, T], 0.5, [F, T, F, T], id="magnitudes"),
        pytest.param([-5.0, 4.0, -3.0, 2.0], [T, T, T, T], 0.25, [F, F, F, T], id="signs"),
        pytest.param([1.0, -1.0, 1.0, 2.0], [T, T, T, T], 0.5, [T, T, F, F], id="ties"),
        pytest.param([2.0, 1.0, 0.5, -1.0], [T, T, T, T], 0.5, [F, T, T, F], id="tie_at_edge"),
        pytest.param([7.0, 7.0, 7.0, 7.0], [T, T, T, T], 0.75, [T, T, T, F], id="all_equal"),
        pytest.param([0.0, -0.0, 0.0, 0.0], [T, T, T, T], 0.5, [T, T, F, F], id="zeros"),
        pytest.param([1.0, 2.0, 3.0, 4.0], [T, T, T, T], 0, [F, F, F, F], id="ratio_0"),
        pytest.param([1.0, 2.0, 3.0, 4.0], [T, T, T, T], 1, [T, T, T, T], id="ratio_1"),
        pytest.param([1.0, 2.0, 3.0, 4.0], [F, F, F, F], 0.5, [F, F, F, F], id="empty_claim"),
        pytest.param([1.0, 2.0, 3.0, 4.0], [F, F, F, F], 1, [F, F, F, F], id="empty_claim_1"),
        pytest.param([0.1, 2.0, 3.0, 0.2], [F, T, T, F], 0.5, [F, T, F, F], id="claim_only"),
        pytest.param([1.0, 1.0, 1.0, 1.0], [F, T, F, T], 0.5, [F, T, F, F], id="ties_in_claim"),
        pytest.param([np.nan, 2.0, 3.0, 4.0], [F, T, T, T], 1 / 3, [F, T, F, F], id="nan_outside"),
        pytest.param([np.inf, -np.inf, 1.0, 2.0], ALL, 0.75, [T, F, T, T], id="infinite"),
        pytest.param([1.0, 2.0, 3.0, 4.0], [T, T, T, T], 0.1, [F, F, F, F], id="rounds_to_none"),
        pytest.param([1.0, 2.0, 3.0, 4.0], [T, T, T, T], 0.9, [T, T, T, T], id="rounds_to_all"),
    ],
)
def test_the_smallest_magnitudes_of_the_claim_go(weights, claim, ratio, expected):
    chosen = magnitude(np.array(weights, np.float32), np.array(claim), ratio)
    assert chosen.dtype == bool
    assert chosen.tolist() == expected


@pytest.mark.parametrize(
    ("size", "ratio", "count"),
    [(1, 0.5, 0), (3, 0.5, 2), (5, 0.5, 2), (7, 0.5, 4), (10, 0.25, 2), (100, 0.29, 29)],
)
def test_counts_round_half_to_even_as_python_does(size, ratio, count):
    chosen = magnitude(np.arange(size, dtype=np.float32), np.ones(size, bool), ratio)
    assert np.flatnonzero(chosen).tolist() == list(range(count))


def test_ties_are_broken_in_c_order_in_any_shape():
    chosen = magnitude(np.ones((2, 3), np.float32), np.ones((2, 3), bool), 0.5)
    assert chosen.tolist() == [[T, T, T], [F, F, F]]


def test_ties_are_broken_in_c_order_whatever_the_memory_layout():
    weights = np.asfortranarray(np.ones((4, 3), np.float32))
    chosen = magnitude(weights, np.ones((4, 3), bool), 0.5)
    assert chosen.tolist() == [[T] * 3, [T] * 3, [F] * 3, [F] * 3]


def test_ties_are_broken_in_c_order_across_blocks(monkeypatch):
    monkeypatch.setattr(pruning, "_BLOCK", 4)
    weights = np.array([1, 2, 1, 1, 1, 2, 1, 2, 1, 1, 2], np.float32)
    chosen = magnitude(weights, np.ones(11, bool), 5 / 11)
    assert np.flatnonzero(chosen).tolist() == [0, 2, 3, 4, 6]
    chosen = magnitude(weights, np.ones(11, bool), 3 / 11)
    assert np.flatnonzero(chosen).tolist() == [0, 2, 3]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_float_type_is_ranked(dtype):
    weights = np.array([3.0, -1.0, 2.0, 0.5], dtype)
    assert magnitude(weights, ALL, 0.5).tolist() == [F, T, F, T]


def test_bfloat16_is_ranked():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    weights = np.array([3.0, -1.0, 2.0, 0.5]).astype(ml_dtypes.bfloat16)
    assert magnitude(weights, ALL, 0.5).tolist() == [F, T, F, T]


def test_arguments_are_left_as_they_were():
    weights, claim = np.array([3.0, -1.0, 2.0, 0.5]), np.array([T, F, T, T])
    for ratio in (0, 0.5, 1):
        magnitude(weights, claim, ratio)[:] = True
    assert weights.tolist() == [3.0, -1.0, 2.0, 0.5]
    assert claim.tolist() == [T, F, T, T]


def test_nan_is_refused():
    weights = np.array([np.nan, 1.0, np.nan, 2.0])
    with pytest.raises(ValueError) as error:
        magnitude(weights, np.array([T, T, F, T]), 0.5)
    assert str(error.value) == (
        "1 of 3 claimed weights are NaN: training diverged, and magnitudes cannot rank them. "
        "Restore earlier weights or train again with a lower learning rate."
    )


@pytest.mark.parametrize("ratio", [-0.01, 1.01, float("nan"), float("inf"), "half", None, [0.5, 1]])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ValueError) as error:
        check_ratio(ratio)
    assert str(error.value) == (
        "prune_ratio is the fraction of the task's claim that pruning releases, a number from 0 "
        f"to 1; got {ratio!r}. Write prune_ratio=0.75 for three quarters."
    )
    with pytest.raises(ValueError, match="prune_ratio is the fraction"):
        magnitude(np.ones(2), np.ones(2, bool), ratio)


@pytest.mark.parametrize("ratio", [0, 1, 0.5, np.float32(0.25), np.float64(1.0)])
def test_a_ratio_from_0_to_1_comes_back_as_a_float(ratio):
    assert check_ratio(ratio) == float(ratio)
    assert type(check_ratio(ratio)) is float


def test_pruning_takes_at_most_three_times_the_memory_of_the_layer():
    weights = np.random.default_rng(0).normal(size=(2048, 1024)).astype(np.float32)
    claim = np.ones(weights.shape, bool)
    tracemalloc.start()
    try:
        chosen = magnitude(weights, claim, 0.5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.count_nonzero(chosen) == weights.size // 2
    assert weights.nbytes + claim.nbytes + peak <= 3 * weights.nbytes


def test_owners_are_counted():
    owner = np.array([[0, 1, 1], [3, 0, 0]], np.uint8)
    assert count_by_owner(owner, 3) == [3, 2, 0, 1]
    assert count_by_owner(owner, 4) == [3, 2, 0, 1, 0]
    assert count_by_owner(np.zeros((0,), np.uint8), 1) == [0, 0]
    assert count_by_owner(np.full(5, 255, np.uint8), 255)[255] == 5


@pytest.mark.parametrize("tasks", [2, 7, 8, 100, 255])
@pytest.mark.parametrize("size", [11, 1 << 16, (1 << 18) + 7])
def test_owners_are_counted_alike_however_many(tasks, size):
    owner = (np.arange(size) % (tasks + 1)).astype(np.uint8)
    whole, rest = divmod(size, tasks + 1)
    expected = [whole + 1] * rest + [whole] * (tasks + 1 - rest)
    assert count_by_owner(owner, tasks) == expected


def test_an_owner_that_is_no_task_is_refused():
    with pytest.raises(ValueError, match="owner 3 is above the number of tasks, 2"):
        count_by_owner(np.array([0, 3], np.uint8), 2)
    # Several hosts have int32; 257 would be 1 as a byte, -1 would be 255.
    with pytest.raises(ValueError, match="owner 257 is above the number of tasks, 2"):
        count_by_owner(np.array([0, 257], np.int32), 2)
    with pytest.raises(ValueError, match="owner -1 is below 0, which is a free weight"):
        count_by_owner(np.array([0, -1], np.int32), 2)


@st.composite
def layers(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=8))
    # Few different values, so that ties are common.
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-4, 4, width=16))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    weights = draw(hnp.arrays(dtype, shape, elements=values))
    claim = draw(hnp.arrays(bool, shape))
    return weights, claim, draw(st.floats(0, 1))


@settings(deadline=None, max_examples=200)
@given(layers())
def test_exactly_the_rounded_share_goes_and_nothing_kept_is_smaller(layer):
    weights, claim, ratio = layer
    chosen = magnitude(weights, claim, ratio)
    kept = claim & ~chosen
    assert np.count_nonzero(chosen) == round(ratio * np.count_nonzero(claim))
    assert not np.any(chosen & ~claim)
    if chosen.any() and kept.any():
        largest, smallest = np.abs(weights[chosen]).max(), np.abs(weights[kept]).min()
        assert largest <= smallest
        ties = claim & (np.abs(weights) == largest)
        in_order = chosen[ties].tolist()  # boolean indexing reads in C order
        assert in_order == sorted(in_order, reverse=True)
    assert np.array_equal(chosen, magnitude(weights, claim, ratio))
