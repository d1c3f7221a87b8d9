"""What a bench says of its numbers, on numbers worked out by hand; and the turns they come from."""

import re

import pytest

from benchmarks import processes
from benchmarks.rows import Row, counted, rows_table, show, timed
from benchmarks.turns import in_turns, quartiles


def test_a_ratio_is_the_median_of_the_ratios_of_turns_and_not_the_ratio_of_medians():
    times = {"plain": [1.0, 2.0, 10.0], "packed": [1.5, 2.0, 11.0]}
    row = timed("step", times, "packed", "plain", goal=1.05)
    assert (row.value, row.base) == (2.0, 2.0)
    assert (row.low, row.ratio, row.high) == (1.05, 1.1, 1.3)
    assert (row.unit, row.goal) == ("s", 1.05)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("c", "w", 1.0, "s", "a", 1.0, 1.02, 1.0, 1.1, goal=1.02), "reached"),
        (Row("c", "w", 1.0, "s", "a", 1.0, 1.03, 1.02, 1.1, goal=1.02), "within noise"),
        (Row("c", "w", 1.0, "s", "a", 1.0, 1.03, 1.025, 1.1, goal=1.02), "MISSED"),
        (counted("c", "w", 3, "bytes", "a", 2, goal=1.4), "MISSED"),
        (Row("c", "w", 0.5, "s", goal=0.5), "reached"),
        (Row("c", "w", 0.6, "s", goal=0.5), "MISSED"),
        (Row("c", "w", 0.6, "s"), ""),
    ],
)
def test_a_goal_is_reached_within_noise_or_missed(row, verdict):
    assert row.verdict == verdict


def test_the_table_shows_both_sides_their_ratio_and_the_verdict():
    rows = [
        timed("step", {"plain": [0.5, 0.5], "packed": [0.51, 0.51]}, "packed", "plain", 1.05),
        counted("file", "pack", 2_200_000, "bytes", "trunk", 2_000_000, 1.07, "2 bits an owner"),
        timed("start", {"predict": [0.4]}, "predict", None, 0.5),
    ]
    assert [line.split("  ") for line in squeezed(rows_table(rows))] == [
        ["case", "what", "against", "ratio", "quartiles", "goal"],
        [
            "step",
            "packed",
            "plain",
            "510 ms",
            "500 ms",
            "1.020",
            "1.020 - 1.020",
            "1.05",
            "reached",
        ],
        ["file", "pack", "trunk", "2.20 MB", "2.00 MB", "1.100", "1.07", "MISSED, 2 bits an owner"],
        ["start", "predict", "400 ms", "0.5s", "reached"],
    ]


def squeezed(table):
    """The lines of a table with two blanks between cells, without the rule."""
    lines = table.splitlines()
    return [re.sub("   +", "  ", line.strip()) for line in [lines[0], *lines[2:]]]


def test_numbers_are_shown_in_the_unit_that_suits_them():
    assert [
        show(0.0123, "s"),
        show(1.234, "s"),
        show(1500, "bytes"),
        show(-1500, "bytes"),
        show(2, ""),
    ] == [
        "12.3 ms",
        "1.23 s",
        "1.50 kB",
        "-1.50 kB",
        "2",
    ]


def test_quartiles_of_one_value_are_that_value():
    assert quartiles([2.0]) == (2.0, 2.0, 2.0)
    assert quartiles([3.0, 1.0, 2.0]) == (1.5, 2.0, 2.5)


def test_sides_take_turns_after_a_warm_up_that_is_not_counted():
    calls = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = in_turns(sides, turns=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert {side: len(values) for side, values in times.items()} == {"a": 3, "b": 3}
    assert min(min(values) for values in times.values()) >= 0


def test_a_process_says_its_progress_and_gives_its_value(tmp_path, monkeypatch):
    (tmp_path / "part.py").write_text(
        "import json, sys\nprint('half')\nprint(json.dumps({'got': sys.argv[1:]}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = []
    assert processes.in_process("part", "a", "b", say=said.append) == {"got": ["a", "b"]}
    assert said == ["half"]


def test_a_process_that_fails_is_an_error_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "part.py").write_text("raise ValueError('no such network')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError) as error:
        processes.in_process("part")
    assert str(error.value) == "ValueError: no such network"
    (tmp_path / "part.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(RuntimeError) as error:
        processes.in_process("part")
    assert str(error.value) == "ended with status 3"
