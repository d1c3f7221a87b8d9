"""`packnet train --overlay`: tasks for a pack that is full."""

import dataclasses

import pytest

import packnet_tf
from helpers.image_folders import task_plan, write_place
from packnet_tf.apps.packs import job
from packnet_tf.apps.packs.training import train


@pytest.fixture
def full(tmp_path):
    """A folder of images with a pack whose one task owns every weight."""
    place = write_place(tmp_path)
    train(task_plan(place, prune_ratio=0.0))
    assert packnet_tf.load(place / "pack.keras").capacity().free == 0
    return place


def test_a_full_pack_takes_a_task(full, capsys):
    report = train(task_plan(full, task="greys", overlay=0.1))
    net = packnet_tf.load(full / "pack.keras")
    whole = net.capacity().sum()
    assert net.tasks == ("shades", "greys")
    assert whole["overlaid"] == {"greys": round(0.1 * whole["total"])}
    assert report.prune_ratio == pytest.approx(0.9, abs=0.01)
    assert "Each task overrides 10.0% of the packed weights" in capsys.readouterr().out


def test_a_task_below_a_linear_head_becomes_that_head_and_overrides_nothing(full, monkeypatch):
    real_begin = job.begin

    def begin(*arguments):
        return dataclasses.replace(real_begin(*arguments), kept_head=1.1)  # nothing reaches it

    monkeypatch.setattr(job, "begin", begin)
    train(task_plan(full, task="greys", overlay=0.1))
    net = packnet_tf.load(full / "pack.keras")
    assert net.capacity().sum()["overlaid"] == {"greys": 0}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"task": "greys", "overlay": 0.1, "reuse": "none"}, "it sees no earlier task"),
        ({"task": "greys", "overlay": 0.0}, "less than one of the"),
        ({"task": "greys", "overlay": 0.1, "claim_ratio": 0.5}, "--claim_ratio is a fraction"),
    ],
)
def test_an_overlay_that_cannot_be_is_refused_before_any_work(full, changes, text):
    before = (full / "pack.keras").read_bytes()
    with pytest.raises(ValueError, match=text):
        train(task_plan(full, **changes))
    assert (full / "pack.keras").read_bytes() == before


def test_a_new_pack_without_a_base_has_nothing_to_override(tmp_path):
    place = write_place(tmp_path)
    with pytest.raises(ValueError, match="it sees no earlier task"):
        train(task_plan(place, overlay=0.1))
