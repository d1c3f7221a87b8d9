"""`net.summary()`: every parameter is accounted for."""

import math

import keras
import pytest

import packnet_tf
from helpers.networks import NETWORKS, head_for, row
from packnet_tf.packing.policy import own_weights

layers = keras.layers


def lines(net):
    said = []
    net.summary(print_fn=said.append)
    return said[0].splitlines()


def numbers(line):
    return [int(cell.replace(",", "")) for cell in line.split()[1:]]


def test_summary_is_worked_out_by_hand():
    trunk = row(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(5, name="fc"),
        shape=(6, 6, 2),
    )
    net = packnet_tf.PackNet(trunk)
    net.add_task("pets", layers.Dense(3))
    assert lines(net) == [
        "layer                        class  packed  shared  per task    head",
        "--------------------------------------------------------------------",
        "conv                        Conv2D      72       4",
        "norm            BatchNormalization                        16",
        "fc                           Dense      20       5",
        "head of 'pets'                                                    18",
        "--------------------------------------------------------------------",
        "all                            135      92       9        16      18",
        "share                               68.15%   6.67%    11.85%  13.33%",
        "packed: each weight is owned by one task, or free. shared: trained with the first task, "
        "then frozen.",
        "per task: every task has these for itself, 16 parameters, beside its head.",
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_the_summary(name):
    build, paths = NETWORKS[name]
    trunk = build()
    net = packnet_tf.PackNet(trunk, biases="per_task")
    head = head_for(trunk)
    model = net.add_task("one", head)
    counted = [part.count_params() for part in (model.trunk, model)]
    net.commit()
    text = lines(net)
    every, packed, shared, per_task, in_head = numbers(
        next(line for line in text if line.startswith("all "))
    )
    assert packed == net.capacity().sum()["total"]
    assert in_head == head.count_params()
    own = {id(v): math.prod(v.shape) for _, v in own_weights(net.state.trunk)}
    assert packed + sum(own.values()) == trunk.count_params()
    assert shared + per_task == sum(own.values())
    assert every == trunk.count_params() + in_head
    assert counted == [trunk.count_params(), every]
    assert net.task_model("one").count_params() == every
    for path in paths:
        layer = path.rpartition("/")[0] if path.endswith("kernel") else path
        assert any(line.startswith(f"{layer} ") for line in text), layer


def test_summary_prints(capsys):
    packnet_tf.PackNet(row(layers.Dense(2, name="only"), shape=(3,))).summary()
    assert capsys.readouterr().out.startswith("layer  class  packed")
