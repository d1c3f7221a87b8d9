"""`packnet train` with lists of tasks, and with every way to prune."""

import re
import shutil

import keras
import numpy as np
import pytest

import packnet_tf
from helpers.image_folders import short_plan, write_place
from packnet_tf.apps.main import main
from packnet_tf.apps.packs.training import train_all


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which both tasks were packed by one command, and the reports."""
    keras.utils.set_random_seed(7)  # as every test has it, for the trunk
    folder = write_place(tmp_path_factory.mktemp("whole"))
    return folder, train_all(plan(folder, prune="equal_shares"))


def plan(place, **changes):
    tasks = tuple((name, str(place / name)) for name in ("shades", "greys"))
    return short_plan(place, **{"tasks": tasks, **changes})


def test_a_list_of_tasks_is_packed_in_order_with_equal_shares(whole):
    folder, reports = whole
    net = packnet_tf.load(folder / "pack.keras")
    assert net.tasks == ("shades", "greys")
    assert net.classes("greys") == ["a", "b", "c"]
    assert net.capacity().free == 0
    whole = net.capacity().sum()
    assert whole["owned"]["shades"] == pytest.approx(whole["total"] / 2, abs=3)
    assert [report.task for report in reports] == ["shades", "greys"]
    assert [round(report.prune_ratio, 1) for report in reports] == [0.5, 0.0]
    assert "test" in reports[0].accuracy
    assert "test" not in reports[1].accuracy
    assert not list(folder.glob("*.progress"))


@pytest.mark.parametrize(
    ("changes", "ratio"),
    [
        ({"prune_ratio": 0.6}, 0.6),
        ({"prune": "0.25", "gradual": False}, 0.25),
        ({"prune": "auto", "max_drop": 1.0}, None),
        ({"claim_ratio": 0.5, "accumulation": 2, "optimizer": "adamw"}, 0.75),
    ],
)
def test_every_way_to_prune_works_from_the_command(place, changes, ratio):
    tasks = (("shades", str(place / "shades")),)
    (report,) = train_all(plan(place, tasks=tasks, **changes))
    if ratio is None:
        assert report.prune_ratio > 0.9  # nothing is too bad for a drop of 1
    else:
        assert report.prune_ratio == pytest.approx(ratio, abs=0.02)
    assert re.search(r"released +\d+\.\d%", str(report))


@pytest.mark.slow
def test_an_adopted_trunk_is_the_first_task(place, capsys):
    tasks = (("shades", str(place / "shades")),)
    short = {"adopt_epochs": 1, "epochs": 1, "prune_epoch": 0}
    train_all(plan(place, tasks=tasks, adopt="original", **short))
    net = packnet_tf.load(place / "pack.keras")
    assert net.tasks == ("original", "shades")
    assert "task original, adopted" in capsys.readouterr().out
    whole = net.capacity().sum()
    assert whole["owned"]["original"] == pytest.approx(0.7 * whole["total"], abs=3)


def test_a_command_killed_between_two_tasks_continues_with_the_second(whole, place, monkeypatch):
    folder, expected = whole
    shutil.copy(folder / "small.keras", place)
    before = packnet_tf.load(folder / "pack.keras").owners()
    from packnet_tf.apps.packs import job

    real, seen = job.begin, []

    def power_cut(net, name, images, *settings, **more):
        seen.append(images.classes)
        if len(seen) == 2:
            raise OSError("the power is gone")
        return real(net, name, images, *settings, **more)

    monkeypatch.setattr(job, "begin", power_cut)
    with pytest.raises(OSError, match="the power is gone"):
        train_all(plan(place, prune="equal_shares"))
    assert packnet_tf.load(place / "pack.keras").tasks == ("shades",)
    reports = train_all(plan(place, prune="equal_shares"))
    assert seen == [2, 3, 3]  # the first task was not trained again
    for path, owner in packnet_tf.load(place / "pack.keras").owners().items():
        assert np.array_equal(owner, before[path])
    assert [report.accuracy for report in reports] == [report.accuracy for report in expected]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--task=a"], "--data is missing"),
        (["--data=x"], "--task is missing"),
        (["--tasks=a:x", "--task=b"], "--tasks goes without --task and --data"),
        (
            ["--task=a", "--data=x", "--pixel_scale=torch"],
            "--pixel_scale says how to read --trunk, which is missing.",
        ),
        (
            ["--task=a", "--data=x", "--pack=garden"],
            "--pack=garden is to be a .keras file; write --pack=garden.keras.",
        ),
        (["--tasks=a"], "--tasks has 'a'; expected NAME:DIR,NAME:DIR"),
        (["--tasks=a:x,b:"], "--tasks has 'b:'; expected NAME:DIR,NAME:DIR"),
        (
            ["--tasks=a:x,b:x", "--prune=half"],
            "--prune=half is none of the ways to prune; write --prune=auto, "
            "--prune=equal_shares, or ratios, --prune=0.5,0.75,0.",
        ),
        (
            ["--tasks=a:x,b:x", "--prune=0.5,0.5,0"],
            "--prune has 3 ratios for 2 tasks; give one each.",
        ),
        (
            ["--task=a", "--data=x", "--prune=1.5"],
            "a number from 0 to 1; got 1.5. Write prune_ratio=0.75 for three quarters.",
        ),
    ],
)
def test_flags_that_do_not_fit_are_wrong_flags(flags, sentence, capsys):
    assert main(["train", "--pack=p.keras", *flags]) == 2
    assert sentence in capsys.readouterr().err
