"""Owners take as few bits as they need, and come back as they were."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packnet_tf.packing import bits


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_numbers_come_back_as_they_were(data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    low = data.draw(st.integers(0, 255))
    high = data.draw(st.integers(low, 255))
    numbers = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(low, high)))
    packed = bits.pack(numbers)
    back = bits.unpack(packed, shape)
    assert packed.dtype == back.dtype == np.uint8
    assert packed.ndim == 1
    assert back.shape == shape
    assert np.array_equal(back, numbers)


@pytest.mark.parametrize(
    ("lowest", "highest", "bits_a_number"),
    [
        pytest.param(0, 3, 2, id="three tasks and free weights"),
        pytest.param(1, 4, 2, id="four tasks, nothing free"),
        pytest.param(0, 4, 3, id="four tasks and free weights"),
        pytest.param(0, 1, 1, id="one task and free weights"),
        pytest.param(5, 5, 0, id="a single value"),
        pytest.param(0, 0, 0, id="nothing owned"),
        pytest.param(0, 255, 8, id="everything"),
        pytest.param(252, 255, 2, id="high numbers"),
    ],
)
@pytest.mark.parametrize("size", [1001, 4096])
def test_numbers_take_as_few_bits_as_their_span_needs(lowest, highest, bits_a_number, size):
    numbers = (np.arange(size) % (highest - lowest + 1) + lowest).astype(np.uint8)
    packed = bits.pack(numbers)
    assert packed.nbytes == 1 + bits_a_number * -(-size // 8)
    assert np.array_equal(bits.unpack(packed, (size,)), numbers)


def test_packed_numbers_are_as_worked_out_by_hand():
    assert bits.pack(np.array([1, 2, 1, 2], np.uint8)).tolist() == [1, 0b0101_0000]
    assert bits.pack(np.array([0, 3, 2, 1], np.uint8)).tolist() == [0, 0b0101_0000, 0b0110_0000]
    assert bits.unpack(np.array([1, 0b0101_0000], np.uint8), (2, 2)).tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize("length", [0, 2, 3, 5, 28])
def test_a_damaged_length_is_refused(length):
    with pytest.raises(ValueError) as error:
        bits.unpack(np.zeros(length, np.uint8), (4, 5))
    assert str(error.value) == (f"{length} bytes are not bit planes of 20 numbers (shape (4, 5))")
