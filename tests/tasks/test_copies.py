"""Copies of a pack share nothing with it."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import (
    compiled,
    data,
    fit,
    jolt,
    logits,
    mlp_trunk,
    owners,
    pack_task,
    packed,
    same,
)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("phase", ["committed", "open"])
def test_a_copy_of_a_pack_is_a_pack_of_its_own(phase, copied, tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    x, _ = data(mlp_trunk())
    if phase == "open":
        jolt(net.add_task("two", layers.Dense(3)))
        net.prune(0.5)
    before, answers = owners(net), logits(net.task_model("one"), x)
    other = copied(net)
    if phase == "open":
        assert other.open_model.pack is other
        assert np.array_equal(logits(other.open_model, x), logits(net.open_model, x))
        other.commit()
    else:
        pack_task(other, "two")
    assert other.tasks == ("one", "two")
    assert min(entry["owned"]["two"] for entry in other.capacity().values()) > 0
    other.save(tmp_path / "other.keras")
    read = packnet_tf.load(tmp_path / "other.keras")
    assert same(list(owners(read).values()), list(owners(other).values()))
    assert np.array_equal(logits(other.task_model("one"), x), answers)
    assert net.tasks == ("one",)
    assert same(list(owners(net).values()), list(before.values()))


def test_a_clone_by_keras_trains_nothing_and_says_what_to_take():
    net = packed(mlp_trunk(), one=0.5)
    model = compiled(net.add_task("two", layers.Dense(3)))
    clone = compiled(keras.models.clone_model(model))
    with pytest.raises(RuntimeError, match=r"belongs to no task.* net\.unpack\(task\)"):
        fit(clone, *data(model), epochs=1)
    clone = keras.models.clone_model(net.task_model("one"))
    with pytest.raises(RuntimeError, match=r"belongs to no task.* net\.unpack\(task\)"):
        _ = clone.trunk
