"""The attacks find what they are for: planted faults are counted."""

import collections
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from helpers.interrupting import interrupt
from packnet_tf.packing import bits
from torture import tracing
from torture.outcome import ALIEN, DIFFERENT, LOST, REFUSED, WHOLE, Counts, Fault, refused, table
from torture.processes import Scratch
from torture.subjects import compare, left_behind


def found(function, *arguments):
    """The kind of the fault that is found."""
    with pytest.raises(Fault) as fault:
        function(*arguments)
    return fault.value.kind


def test_a_refusal_is_a_short_sentence_of_an_expected_type_that_names_the_file():
    assert refused(ValueError("Cannot read 'pack.keras'."), "/a/pack.keras") == REFUSED
    assert refused(RuntimeError("Nothing to commit.")) == REFUSED
    for error in (
        KeyError("pack.keras"),
        RecursionError("pack.keras"),
        ValueError("pack.keras" + "x" * 1000),
        ValueError(""),
        ValueError("invalid literal"),
    ):
        assert found(refused, error, "/a/pack.keras") == ALIEN


def test_lost_tasks_and_different_answers_are_told_apart():
    old, new = {"one": b"1"}, {"one": b"1", "two": b"2"}
    assert compare({"one": b"1", "two": b"2"}, old, new) == WHOLE
    assert found(compare, {}, old, new) == LOST
    assert found(compare, {"one": b"1", "two": b"1"}, old, new) == DIFFERENT
    assert found(compare, {"one": b"1"}, new) == LOST


def test_files_outside_and_files_left_behind_are_found(tmp_path):
    scratch = Scratch(tmp_path)
    assert scratch.outside() is None
    left_behind(scratch.path)
    (scratch.path / ".pack.keras.lock").touch()
    assert found(left_behind, scratch.path) == ALIEN
    (scratch.path.parent / "planted").touch()
    assert "planted" in scratch.outside()
    scratch.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_table_counts_every_ending_of_every_kind():
    counts = {"kills": Counts(), "readers": Counts()}
    for outcome in (WHOLE, WHOLE, LOST):
        counts["kills"].add(outcome, 0.5)
    counts["readers"].add(REFUSED, 0.5)
    assert counts["kills"].faults == 1
    lines = table(counts).splitlines()
    assert lines[2] == "| kills | 3 | 2 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |"
    assert lines[-1] == "| all | 4 | 2 | 1 | 0 | 1 | 0 | 0 | 0 | 0 |"


WRITE = """
import os, sys
sys.stdin.read(1)
os.mkdir("made")
with open("first", "w") as file:
    file.write("x")
os.replace("first", "second")
"""


@pytest.mark.skipif(not tracing.available(), reason="needs Linux")
def test_a_process_is_killed_before_each_call_that_changes_a_file(tmp_path):
    left = collections.Counter()
    for at in (None, 0, 1, 2, 3):
        folder = tmp_path / str(at)
        folder.mkdir()
        process = subprocess.Popen([sys.executable, "-c", WRITE], stdin=-1, cwd=folder)
        try:
            with tracing.Tracer(process.pid, folder) as tracer:
                process.stdin.write(b"x")
                process.stdin.close()
                calls = tracer.run(at)
        except OSError as error:
            process.kill()
            pytest.skip(f"ptrace is forbidden here: {error}")
        status = process.wait()
        assert (status, calls) == ((0, 4) if at is None else (-signal.SIGKILL, at))
        left[at] = sorted(os.listdir(folder))
    assert left == {
        None: ["made", "second"],
        0: [],
        1: ["made"],
        2: ["first", "made"],
        3: ["first", "made"],
    }


def test_seeds_in_a_row_reach_every_point():
    for size in (1, 2, 3, 10, 97, 1000):
        assert {tracing.spread(number, size) for number in range(size)} == {*range(size)}


def test_a_verb_is_interrupted_at_each_of_its_points():
    counted, done = [], []

    def verb():
        bits.pack(np.array([1, 2, 0], np.uint8))
        done.append(True)

    assert interrupt(verb, None, counted) == ""
    assert done == [True]
    assert counted[0] > 5
    places = [interrupt(verb, at) for at in range(counted[0])]
    assert done == [True]
    assert all(place.startswith("bits.py:") for place in places)
    assert len({*places}) < len(places)  # before a store within a line too
