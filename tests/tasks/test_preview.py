"""A preview shows what the next task would begin with, and changes nothing."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import conv_trunk, data, jolt, pack_task, same, state

pytestmark = pytest.mark.any_backend


def pack(restart="trunk"):
    """A pack of two tasks, on a trunk that normalises by batches."""
    net = packnet_tf.PackNet(conv_trunk(), restart=restart)
    pack_task(net, "one")
    pack_task(net, "two")
    return net


@pytest.mark.parametrize("restart", ["trunk", "zero"])
@pytest.mark.parametrize("statistics", ["task", "trunk"])
@pytest.mark.parametrize("reuse", ["all", "none", ["two"]])
def test_it_answers_as_the_next_task_does_when_it_is_added(restart, statistics, reuse):
    net = pack(restart)
    x, _ = data(net.task_model("one"))
    shown = net.preview(statistics, reuse)
    trunk = net.add_task("three", layers.Dense(3), statistics=statistics, reuse=reuse).trunk
    for training in (False, True):
        with keras.StatelessScope():
            seen, expected = shown(x, training=training), trunk(x, training=training)
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (seen, expected)))


def test_without_free_weights_it_answers_as_a_task_that_claims_none():
    net = pack()
    x, _ = data(net.task_model("one"))
    shown = keras.ops.convert_to_numpy(net.preview(free=False)(x, training=False))
    trunk = net.add_task("three", layers.Dense(3), claim_ratio=0.0).trunk
    np.testing.assert_array_equal(shown, keras.ops.convert_to_numpy(trunk(x, training=False)))


@pytest.mark.parametrize("restart", ["trunk", "fresh"])
def test_it_changes_nothing_and_works_beside_an_open_task(restart):
    net = pack(restart)
    jolt(net.add_task("three", layers.Dense(3)))
    before = state(net)
    x, _ = data(net.open_model)
    trunk = net.preview()
    trunk(x, training=False)
    with keras.StatelessScope():
        trunk(x, training=True)
    assert same(before, state(net))
    assert net.open_model.task_name == "three"
    assert not trunk.packed_layers()[0].trainable_weights


def test_what_cannot_be_chosen_is_refused():
    net = packnet_tf.PackNet(conv_trunk())
    with pytest.raises(ValueError, match="statistics='none' is not a source"):
        net.preview("none")
    with pytest.raises(ValueError, match="reuse names 'birds', which is not a committed task"):
        net.preview(reuse=["birds"])


def test_it_does_not_take_other_weights():
    net = pack()
    before = state(net)
    trunk = net.preview()
    with pytest.raises(RuntimeError, match="it only shows the pack"):
        trunk.set_weights([value + 1 for value in trunk.get_weights()])
    assert same(before, state(net))
