"""The shares that `packnet train` prints before it trains."""

import pytest

from helpers.image_folders import small_pack
from packnet_tf.apps.packs import training
from packnet_tf.apps.packs.plan import Plan


def printed(capsys, net, **settings):
    plan = Plan(pack="a.keras", task="a", data="a", **settings)
    prunes = {"a": 0.5, "b": 0.0}
    training._print_plan(plan, net, prunes, training._overlays(plan, net, prunes))
    return capsys.readouterr().out


def sees(out):
    return [line.split()[4] for line in out.splitlines()[2:4]]


@pytest.mark.parametrize(
    ("reuse", "seen"),
    [
        ("all", ["87.5%", "100.0%"]),
        ("none", ["12.5%", "12.5%"]),
        ("auto", ["62.5%", "62.5%"]),  # the base alone
        ("base", ["62.5%", "62.5%"]),
        ("base,one", ["87.5%", "87.5%"]),
        ("one", ["37.5%", "37.5%"]),
    ],
)
def test_the_plan_shows_what_tasks_see_by_their_reuse(capsys, reuse, seen):
    net = small_pack({"one": ["x", "y"]}, base="base")  # half, a quarter, and a quarter is free
    out = printed(capsys, net, reuse=reuse)
    assert sees(out) == seen
    warned = [line for line in out.splitlines() if line.startswith("WARNING")]
    assert len(warned) == (2 if reuse == "none" else 0)


def test_without_a_base_tasks_see_all_earlier_ones_by_default(capsys):
    assert sees(printed(capsys, small_pack({"one": ["x", "y"]}))) == ["75.0%", "100.0%"]


@pytest.mark.parametrize(
    ("reuse", "seen"), [("auto", "85.0%"), ("trunk", "85.0%"), ("none", "15.0%")]
)
def test_a_base_to_come_counts_as_one(capsys, reuse, seen):
    net = small_pack({})
    net.notes["base"] = "trunk"
    assert sees(printed(capsys, net, reuse=reuse)) == [seen, seen]


@pytest.mark.parametrize(
    ("share", "said"), [("0.0001", "0.01%"), ("0.05", "5%"), ("0.125", "12.5%")]
)
def test_small_overlays_are_printed_with_their_digits(capsys, share, said):
    plan = Plan(pack="a.keras", task="a", data="a", overlay=share)
    training._print_plan(plan, small_pack({}, base="base"), {"a": 0.0}, {"a": float(share)})
    assert capsys.readouterr().out.startswith(f"Each task overrides {said} of the packed weights")
