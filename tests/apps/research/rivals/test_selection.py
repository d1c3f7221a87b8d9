"""The n-th highest value is that of a sorted list, whatever the values are."""

import numpy as np
import pytest
import tensorflow as tf

from packnet_tf.apps.research.methods.rivals import selection
from packnet_tf.apps.research.methods.rivals.selection import by_digits, nth_highest

RNG = np.random.default_rng(0)
VALUES = {
    "normal": RNG.normal(size=1001),
    "of all sizes": RNG.normal(size=1001) * 10.0 ** RNG.integers(-30, 30, 1001),
    "many equal": RNG.integers(-3, 3, 1001) / 3,
    "zeros of both signs": np.tile([0.0, -0.0], 20),
    "negative": -np.exp(RNG.normal(size=500)),
    "one": np.ones(1),
}


@pytest.mark.parametrize("select", [by_digits, nth_highest])
@pytest.mark.parametrize("name", VALUES)
def test_it_is_that_of_a_sorted_list(name, select):
    values = VALUES[name].astype("float32")
    size, ranked = len(values), np.sort(values)[::-1]
    for n in sorted({1, 2, size // 3, size // 2, size - 1, size} & set(range(1, size + 1))):
        traced = tf.function(lambda x, n=n: select(x, n))
        assert float(traced(tf.constant(values))) == ranked[n - 1]


def test_on_an_accelerator_it_can_be_compiled(monkeypatch):
    monkeypatch.setattr(selection, "has_accelerator", lambda: True)
    values = tf.constant(VALUES["normal"].astype("float32"))
    compiled = tf.function(lambda x: nth_highest(x, 300), jit_compile=True)
    assert float(compiled(values)) == np.sort(values)[-300]
