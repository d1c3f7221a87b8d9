"""Who owns how much: a table, a dict, and a number."""

import json

from keras import layers

import packnet_tf
from helpers.pack_helpers import conv_trunk, mlp_trunk, packed
from packnet_tf.reporting.capacity import Capacity

ENTRIES = {
    "conv": {"total": 1000, "free": 250, "claimed": 100, "owned": {"birds": 500, "cars": 250}},
    "block/fc": {"total": 24, "free": 0, "claimed": 0, "owned": {"birds": 24, "cars": 0}},
}


def test_layers_add_up():
    capacity = Capacity(ENTRIES, ("birds", "cars"))
    assert capacity.sum() == {
        "total": 1024, "free": 250, "claimed": 100, "owned": {"birds": 524, "cars": 250},
    }  # fmt: skip
    assert capacity.free == 250 / 1024
    assert capacity.tasks == ("birds", "cars")
    assert capacity == ENTRIES


def test_it_prints_as_a_table():
    assert str(Capacity(ENTRIES, ("birds", "cars"))) == "\n".join(
        [
            "layer     weights   birds   cars   free",
            "---------------------------------------",
            "conv        1,000   50.0%  25.0%  25.0%",
            "block/fc       24  100.0%   0.0%   0.0%",
            "---------------------------------------",
            "all         1,024   51.2%  24.4%  24.4%",
        ]
    )


def test_it_gives_a_dict_for_json():
    capacity = Capacity(ENTRIES, ("birds", "cars"))
    plain = capacity.to_dict()
    assert plain == {"tasks": ["birds", "cars"], "layers": ENTRIES, "sum": capacity.sum()}
    assert type(plain["layers"]) is dict
    assert json.loads(json.dumps(plain)) == plain


def test_a_new_pack_is_all_free():
    capacity = packnet_tf.PackNet(mlp_trunk()).capacity()
    assert capacity == {
        "first": {"total": 192, "free": 192, "claimed": 0, "owned": {}},
        "second": {"total": 128, "free": 128, "claimed": 0, "owned": {}},
    }
    assert capacity.free == 1.0
    assert capacity.tasks == ()
    assert "first       192  100.0%" in str(capacity)


def test_it_counts_every_task_and_the_open_claim():
    net = packed(mlp_trunk(), one=0.75, two=0.5)
    net.add_task("three", layers.Dense(3))
    net.prune(0.25)
    capacity = net.capacity()
    assert capacity == {
        "first": {"total": 192, "free": 72, "claimed": 54, "owned": {"one": 48, "two": 72}},
        "second": {"total": 128, "free": 48, "claimed": 36, "owned": {"one": 32, "two": 48}},
    }
    assert json.loads(json.dumps(capacity.to_dict())) == capacity.to_dict()
    assert capacity.free == 120 / 320
    assert net.state.claimed_share() == (90 / 320, 0.25)
    net.commit()
    assert net.capacity()["first"]["owned"] == {"one": 48, "two": 72, "three": 54}


def test_it_is_a_snapshot():
    net = packed(conv_trunk(), one=0.5)
    before = net.capacity()
    kept = json.dumps(before.to_dict())
    net.add_task("two", layers.Dense(3))
    net.commit()
    assert json.dumps(before.to_dict()) == kept
    assert net.capacity().free == 0.0
