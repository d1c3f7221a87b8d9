"""A task that came out badly is said so, with the remedy; one that did not is not."""

import pytest
from keras import layers

import packnet_tf
from helpers.pack_helpers import mlp_trunk, packed
from packnet_tf.reporting.quality import shortfalls


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, []),
        ({"retrained": 0.9, "chance": 0.2, "linear_head": 0.9, "before_prune": 0.92}, []),
        ({"retrained": 0.897, "linear_head": 0.9}, []),  # within half a point
        ({"retrained": 0.2, "chance": 0.2}, ["no better than guessing"]),
        ({"retrained": 0.55, "chance": 0.5}, ["no better than guessing"]),
        ({"retrained": 0.7, "chance": 0.5}, []),
        ({"retrained": 0.8, "linear_head": 0.9}, ["below a linear head"]),
        ({"retrained": 0.8, "before_prune": 0.9}, ["lost much to its prune"]),
        (
            {"retrained": 0.2, "chance": 0.2, "linear_head": 0.9, "before_prune": 0.9},
            ["no better than guessing", "below a linear head"],
        ),
    ],
)
def test_what_falls_short_is_said_once(results, words):
    found = shortfalls("pets", results)
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert "'pets'" in sentence
        assert word in sentence
        assert "docs/guides/low_accuracy.md" in sentence


def test_the_remedy_keeps_a_base_visible():
    [said] = shortfalls("pets", {"retrained": 0.8, "linear_head": 0.9})
    assert 'reuse="auto"' in said  # "none" would hide the base as well


def test_results_are_kept_with_the_task_and_in_the_file(tmp_path):
    net = packed(mlp_trunk(), one=0.5)
    assert net.results("one") == {}
    net.note_results("one", retrained=0.5, test=0.25)
    net.note_results("one", retrained=0.75)
    net.save(tmp_path / "pack.keras")
    assert packnet_tf.load(tmp_path / "pack.keras").results("one") == {
        "retrained": 0.75,
        "test": 0.25,
    }
    with pytest.raises(ValueError, match="no committed task 'two'"):
        net.results("two")


def test_statistics_of_a_task_are_a_known_choice():
    net = packnet_tf.PackNet(mlp_trunk())
    with pytest.raises(ValueError, match='statistics="trunk"'):
        net.add_task("one", layers.Dense(3), statistics="batch")
