"""How a pack stands, in sentences and tables, worked out by hand."""

import dataclasses

import pytest

from helpers.image_folders import small_pack
from packnet_tf.apps.packs.standing import (
    capacity_bar,
    counted_tasks,
    policy_line,
    sentence,
    standing,
    storage_table,
    tasks_table,
)
from packnet_tf.packing.policy import Policy


def facts(base=None, free=40, last=20, names=("base", "a", "b")):
    owned = dict(zip(names, (100 - free - last, 0, last), strict=True))
    tasks = [
        {
            "task": name, "number": number, "classes": ["x", "y"], "sees": [],
            "results": {} if name == base else {"retrained": 0.9, "linear_head": 0.85},
            "metadata": {"committed": "2026-03-01T10:00:00+00:00"}, "owns": owned[name] / 100,
            "bytes": 100, "shortfalls": [],
        }
        for number, name in enumerate(names, start=1)
    ]  # fmt: skip
    return {
        "pack": "somewhere/garden.keras", "bytes": 5000, "base": base, "tasks": tasks,
        "capacity": {"sum": {"total": 100, "free": free, "claimed": 0, "owned": owned}},
        "storage": {
            "packed": 1000, "owners": 50, "trunk": 100, "tasks": dict.fromkeys(names, 100),
            "one_network": 1150, "separate_networks": 3400 if base is None else 2300,
        },
    }  # fmt: skip


def test_a_pack_says_its_size_its_room_and_that_no_task_falls_short():
    assert sentence(facts()) == (
        "garden.keras holds 3 tasks in 1.26 times the bytes of one network (3 separate networks "
        "take 2.96 times). 40.0% of its packed weights are free, enough for 2 more tasks with as "
        "many weights as 'b'. No task falls short."
    )


@pytest.mark.parametrize(
    ("count", "base", "said"),
    [(1, None, "1 task"), (2, None, "2 tasks"), (2, "base", "1 task beside its base")],
)
def test_tasks_are_counted_beside_the_base(count, base, said):
    assert counted_tasks(count, base) == said


def test_separate_networks_are_those_of_the_users_tasks(tmp_path):
    found = []
    for base in (None, "base"):
        path = tmp_path / f"{base}.keras"
        net = small_pack({"shades": ["x", "y"], "greys": ["a", "b"]}, base=base)
        net.save(path)
        found.append(standing(net, path)["storage"]["separate_networks"])
    assert found[0] == found[1] > 0


def test_the_base_is_no_task_of_the_users():
    assert sentence(facts(base="base")).startswith(
        "garden.keras holds 2 tasks beside its base in 1.26 times the bytes of one network (2 "
        "separate networks take 2.00 times). "
    )


@pytest.mark.parametrize(
    ("free", "last", "said"),
    [
        (0, 20, "0.0% of its packed weights are free: the pack is full."),
        (10, 20, "10.0% of its packed weights are free, less than 'b' owns."),
        (20, 20, "20.0% of its packed weights are free, enough for 1 more task with as many"),
        (59.9, 20, "59.9% of its packed weights are free, enough for 3 more tasks with as many"),
        (20, 0, "20.0% of its packed weights are free. "),
    ],
)
def test_the_room_that_is_left_is_counted_in_tasks(free, last, said):
    assert said in sentence(facts(free=free, last=last))


def test_tasks_that_fall_short_are_named():
    found = facts()
    found["tasks"][1]["shortfalls"].append("Task 'a' is no better than guessing, and so on.")
    assert sentence(found).endswith(" 1 task falls short: a.")
    found["tasks"][2]["shortfalls"].append("Task 'b' lost much to its prune.")
    assert sentence(found).endswith(" 2 tasks fall short: a, b.")


def test_the_bar_has_a_mark_per_share():
    bar, key = capacity_bar(facts()).splitlines()
    assert bar == "[" + "1" * 24 + "3" * 12 + "." * 24 + "]"
    assert key == " 1 base 40.0%  2 a 0.0%  3 b 20.0%  . free 40.0%"


def test_the_key_of_the_bar_is_wrapped():
    many = facts()
    owned = {f"task_number_{n}": 5 for n in range(1, 13)}
    many["capacity"]["sum"] |= {"owned": owned, "free": 40}
    _, *key = capacity_bar(many).splitlines()
    assert len(key) > 1
    assert max(map(len, key)) <= 80
    assert "  ".join(line.strip() for line in key).split("  ") == [
        *(f"{mark} {name} 5.0%" for mark, name in zip("123456789ABC", owned, strict=True)),
        ". free 40.0%",
    ]


def test_a_row_of_the_table_has_accuracies_and_the_day():
    row = tasks_table(facts()).rows[-1]
    assert row == ["3", "b", "2", "85.0%", "-", "90.0%", "-", "20.0%", "100 bytes", "2026-03-01"]


def test_a_plus_sign_says_what_an_overlay_overrides():
    found = facts()
    found["tasks"][-1] |= {"owns": 0.0, "overrides": 0.05}
    assert tasks_table(found).rows[-1][-3] == "+5.0%"


@pytest.mark.parametrize(
    ("noted", "shown"), [({"train": 1200, "test": 9}, "1,200"), ({}, "-"), (500, "-"), (None, "-")]
)
def test_the_full_table_has_training_images_and_all_moments(noted, shown):
    found = facts()
    found["tasks"][-1]["metadata"]["images"] = noted
    table = tasks_table(found, full=True)
    row = dict(zip(table.head, table.rows[-1], strict=True))
    assert row["training images"] == shown
    assert [row[name] for name in ("linear head", "after prune", "retrained")] == [
        "85.0%", "-", "90.0%",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("notes", "end"), [({}, "trunk."), ({"pixel_range": "0,255"}, "trunk; pixel values 0 to 255.")]
)
def test_the_policy_and_the_pixel_values_are_said(notes, end):
    policy = dataclasses.asdict(Policy())
    assert policy_line({"policy": policy, "notes": notes}) == (
        f"Biases shared, norms per_task, embeddings shared; freed weights restart from {end}"
    )


def test_a_stem_is_said():
    said = policy_line({"policy": dataclasses.asdict(Policy(stem="relu1")), "notes": {}})
    assert said.endswith("restart from trunk; the layers up to relu1 are shared.")


def test_the_base_is_marked_in_the_table():
    assert [row[1] for row in tasks_table(facts(base="base")).rows] == ["base (adopted)", "a", "b"]


def test_storage_adds_up():
    sizes = dict(storage_table(facts()).rows)
    assert sizes["all values"] == "1.45 kB"
    assert sizes["3 separate networks"] == "3.40 kB"
