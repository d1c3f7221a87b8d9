"""`model.summary()` of a task counts the network that the task sees."""

import re

import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import compiled, data, mlp_trunk, pack_task

TRUNK = 12 * 16 + 16 + 16 * 8 + 8
KERNELS = 12 * 16 + 16 * 8
HEAD = 8 * 3 + 3


def counts(model, **options):
    """The numbers of parameters that `summary` prints: total, trainable, and others."""
    said = []
    model.summary(print_fn=said.append, **options)
    text = "\n".join(said)
    numbers = dict(re.findall(r"(\S+) params: ([\d,]+)", text))
    return {name: int(number.replace(",", "")) for name, number in numbers.items()}, text


def test_the_network_of_a_task_is_counted_as_a_plain_one():
    net = packnet_tf.PackNet(mlp_trunk())
    model = net.add_task("one", layers.Dense(3))
    found, text = counts(model, expand_nested=True)
    whole = TRUNK + HEAD
    assert found == {"Total": whole, "Trainable": whole, "Non-trainable": 0}
    assert re.search(r"first \(PackedDense\) +│ +\(None, 16\) +│ +208 ", text)
    assert re.search(rf"mlp \(PackedTrunk\) +│ +\(None, 8\) +│ +{TRUNK} ", text)
    net.prune(0.75)
    found, _ = counts(model)
    kept = whole - KERNELS * 3 // 4
    assert found == {"Total": whole, "Trainable": kept, "Non-trainable": KERNELS * 3 // 4}
    net.commit()
    for shown in (model, net.task_model("one"), net.unpack("one")):
        found, _ = counts(shown)
        assert found["Total"] == shown.count_params() == whole
    assert counts(net.task_model("one"))[0]["Trainable"] == 0


def test_a_later_task_trains_its_claim_and_what_is_its_own():
    net = packnet_tf.PackNet(mlp_trunk())
    pack_task(net, "one", 0.5)
    model = net.add_task("two", layers.Dense(3), claim_ratio=0.5)
    assert counts(model)[0]["Trainable"] == KERNELS // 4 + HEAD  # biases are those of task one
    model.trunk.trainable = False
    assert counts(model)[0]["Trainable"] == HEAD


def test_looking_changes_nothing_for_the_optimizer():
    net = packnet_tf.PackNet(mlp_trunk())
    model = compiled(net.add_task("one", layers.Dense(3)), "adam")
    x, y = data(model)
    before = [id(variable) for variable in model.trainable_variables]
    counts(model)
    model.fit(x, y, verbose=0)
    found, _ = counts(model)
    assert [id(variable) for variable in model.trainable_variables] == before
    assert found["Optimizer"] == 2 * (TRUNK + HEAD) + 2  # two moments, the step and the rate
    assert found["Total"] == TRUNK + HEAD + found["Optimizer"]  # as Keras counts

    def interrupt(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.summary(print_fn=interrupt)
    assert [id(variable) for variable in model.trainable_variables] == before
