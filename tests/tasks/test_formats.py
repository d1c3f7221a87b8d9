"""Packs of earlier file formats open, and answer as they did.

`formats/` has a pack of every format, as the packnet_tf of that time wrote it, with inputs and the
logits of its tasks. Weights and inputs are small multiples of 1/16, so that sums are exact on every
machine. A new format adds its pack: CONTRIBUTING.md says how.
"""

import pathlib

import numpy as np
import pytest

import packnet_tf
from packnet_tf.tasks.storage import FORMAT, READABLE

FOLDER = pathlib.Path(__file__).parent / "formats"


def logits(net, x):
    return {name: np.asarray(net.task_model(name)(x)) for name in net.tasks}


@pytest.mark.any_backend
@pytest.mark.parametrize("number", READABLE)
def test_a_pack_of_every_readable_format_answers_to_the_bit(number, tmp_path):
    with np.load(FOLDER / f"format_{number}.npz") as stored:
        expected = dict(stored)
    x = expected.pop("x")
    net = packnet_tf.load(FOLDER / f"format_{number}.keras")
    net.save(tmp_path / "again.keras")
    for pack in (net, packnet_tf.load(tmp_path / "again.keras")):
        assert net.tasks == tuple(expected)
        for name, found in logits(pack, x).items():
            np.testing.assert_array_equal(found, expected[name])


def test_every_format_from_5_on_is_readable():
    assert sorted(READABLE) == list(range(5, FORMAT + 1))
