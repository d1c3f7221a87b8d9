"""`packnet train --overlay`: tasks for a pack that is full."""

import dataclasses
import pathlib
import shutil

import pytest

import packnet_tf
from helpers.image_folders import small_pack, task_plan, write_place
from packnet_tf.apps.packs import job, training
from packnet_tf.apps.packs.overlay import SHARE, overlay_of
from packnet_tf.apps.packs.plan import Plan
from packnet_tf.apps.packs.training import train, train_all
from packnet_tf.training.overlay_search import SHARES


@pytest.fixture(scope="module")
def kept_full(tmp_path_factory):
    """A folder of images with a pack whose one task owns every weight."""
    place = write_place(tmp_path_factory.mktemp("full"))
    train(task_plan(place, prune_ratio=0.0))
    assert packnet_tf.load(place / "pack.keras").capacity().free == 0
    return place


@pytest.fixture
def full(kept_full, tmp_path):
    """A copy of that folder, for a test that packs a task."""
    return pathlib.Path(shutil.copytree(kept_full, tmp_path, dirs_exist_ok=True))


def test_a_full_pack_takes_a_task(full, capsys):
    report = train(task_plan(full, task="greys", overlay="0.1"))
    net = packnet_tf.load(full / "pack.keras")
    whole = net.capacity().sum()
    assert net.tasks == ("shades", "greys")
    assert whole["overlaid"] == {"greys": round(0.1 * whole["total"])}
    assert report.prune_ratio == pytest.approx(0.9, abs=0.01)
    assert "Each task overrides 10% of the packed weights" in capsys.readouterr().out


def test_a_task_below_a_linear_head_becomes_that_head_and_overrides_nothing(full, monkeypatch):
    real_begin = job.begin

    def begin(*arguments, **more):
        return dataclasses.replace(
            real_begin(*arguments, **more), kept_head=1.1
        )  # nothing reaches it

    monkeypatch.setattr(job, "begin", begin)
    train(task_plan(full, task="greys", overlay="0.1"))
    net = packnet_tf.load(full / "pack.keras")
    assert net.capacity().sum()["overlaid"] == {"greys": 0}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"task": "greys", "overlay": "0.1", "reuse": "none"}, "sees no earlier task"),
        (
            {"task": "greys", "overlay": "0"},
            "overlay=0 is none of when_full, auto",
        ),
        ({"task": "greys", "overlay": "0.0001"}, r"is none of the [\d,]+ packed weights"),
        ({"task": "greys", "overlay": "five"}, r"overlay=five is none of when_full, auto, none"),
        ({"task": "greys", "overlay": "0.1", "prune_ratio": 0.5}, "--prune_ratio is of tasks that"),
        ({"task": "greys", "overlay": "auto", "prune": "auto"}, "--prune is of tasks that claim"),
        ({"task": "greys", "overlay": "0.1", "gradual": False}, "--gradual is of tasks that claim"),
        (
            {"task": "greys", "overlay": "none"},
            "Let it override weights of others",
        ),
        (
            {"task": "greys", "overlay": "0.1", "claim_ratio": 0.5},
            "--claim_ratio is of tasks that",
        ),
    ],
)
def test_an_overlay_that_cannot_be_is_refused_before_any_work(kept_full, changes, text):
    before = (kept_full / "pack.keras").read_bytes()
    with pytest.raises(ValueError, match=text):
        train(task_plan(kept_full, **changes))
    assert (kept_full / "pack.keras").read_bytes() == before
    assert not (kept_full / "pack.keras.progress").exists()  # nothing to continue


def test_a_full_pack_takes_a_task_by_itself_and_says_so(full, capsys):
    report = train(task_plan(full, task="greys"))
    net = packnet_tf.load(full / "pack.keras")
    printed, whole = capsys.readouterr().out, net.capacity().sum()
    assert "Few weights will be free for greys: to override 5% of all" in printed
    assert "greys: few packed weights are free, so it overrides 5% of all" in printed
    assert "overrides of the packed weights" in str(report)
    assert whole["overlaid"]["greys"] == round(0.05 * whole["total"])
    assert report.overrides == whole["overlaid"]["greys"] / whole["total"]


def test_an_overlay_may_find_its_share(full, capsys):
    train(task_plan(full, task="greys", overlay="auto"))
    whole = packnet_tf.load(full / "pack.keras").capacity().sum()
    assert "Each task overrides 1 to 10 % of the packed weights" in capsys.readouterr().out
    assert whole["overlaid"]["greys"] in [round(share * whole["total"]) for share in SHARES]


@pytest.mark.parametrize(
    ("prune", "free", "claim_ratio", "expected"),
    [
        (0.75, 0.09, 1.0, None),
        (0.75, 0.07, 1.0, SHARE),
        (0.75, 0.09, 0.5, SHARE),
        (0.0, 0.07, 1.0, None),
        (packnet_tf.Auto(0.01), 0.01, 1.0, SHARE),
    ],
)
def test_tasks_that_would_own_less_than_two_percent_override(prune, free, claim_ratio, expected):
    assert overlay_of("when_full", prune, free, True, claim_ratio) == expected
    assert overlay_of("when_full", prune, free, False, claim_ratio) is None  # there is no other
    assert overlay_of("none", prune, free, True, claim_ratio) is None
    assert overlay_of("auto", prune, free, True, claim_ratio) == "auto"


def test_a_part_of_the_free_weights_leaves_room_for_the_next_task(full, capsys):
    tasks = (("greys", str(full / "greys")), ("more", str(full / "greys")))
    plan = task_plan(full, pack=str(full / "half.keras"), tasks=tasks, prune="0,0", claim_ratio=0.5)
    reports = train_all(dataclasses.replace(plan, overlay="none"))
    assert [report.capacity for report in reports] == pytest.approx([0.5, 0.25], abs=0.01)


def test_a_first_task_that_keeps_little_owns_it(tmp_path):
    place = write_place(tmp_path)
    report = train(task_plan(place, prune_ratio=0.99, gradual=False))
    assert report.overrides is None
    assert report.capacity > 0.97


def test_tasks_of_one_command_take_room_in_turn(capsys):
    net, plan = small_pack({}, base="base"), Plan(pack="a.keras", task="a", data="a")
    prunes = {"a": 0.06, "b": 0.75, "c": 0.25}  # of 50 %, then of 3 %
    overlays = training._overlays(plan, net, prunes)
    assert overlays == {"a": None, "b": SHARE, "c": None}
    training._print_plan(plan, net, prunes, overlays)
    printed = capsys.readouterr().out
    assert "Few weights will be free for b: to override 5% of all" in printed
    assert [line.split()[:3] for line in printed.splitlines()[2:4]] == [
        ["2", "0.06", "50.0%"],
        ["3", "0.25", "3.0%"],
    ]


def test_a_new_pack_without_a_base_has_nothing_to_override(tmp_path):
    place = write_place(tmp_path)
    with pytest.raises(ValueError, match="sees no earlier task"):
        train(task_plan(place, overlay="0.1"))
