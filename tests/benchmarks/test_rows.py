"""What a benchmark says of its numbers, on numbers worked out by hand; the turns they come from."""

import pytest

from benchmarks.rows import Row, counted, in_turns, rows_table, show, summary, timed


def test_a_ratio_is_the_median_of_the_ratios_of_turns_and_not_the_ratio_of_medians():
    times = {"plain": [1.0, 2.0, 10.0], "packed": [1.5, 2.0, 11.0]}
    row = timed(times, "packed", "plain", goal=1.05)
    assert (row.value, row.base) == (2.0, 2.0)
    assert (row.low, row.ratio, row.high) == (1.05, 1.1, 1.3)
    assert (row.unit, row.goal) == ("s", 1.05)


def test_one_turn_is_its_own_quartiles():
    row = timed({"plain": [2.0], "packed": [3.0]}, "packed", "plain")
    assert (row.low, row.ratio, row.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("w", 1.0, "s", "a", 1.0, 1.02, 1.0, 1.1, goal=1.02), "reached"),
        (Row("w", 1.0, "s", "a", 1.0, 1.03, 1.02, 1.1, goal=1.02), "within noise"),
        (Row("w", 1.0, "s", "a", 1.0, 1.03, 1.025, 1.1, goal=1.02), "MISSED"),
        (counted("w", 3, "bytes", "a", 2, goal=1.4), "MISSED"),
        (counted("w", 3, "bytes", "a", 2), ""),
    ],
)
def test_a_goal_is_reached_within_noise_or_missed(row, verdict):
    assert row.verdict == verdict


def test_the_table_shows_both_sides_their_ratio_and_the_verdict_and_the_summary_counts_goals():
    rows = [
        timed({"plain": [0.5, 0.5], "packed": [0.51, 0.51]}, "packed", "plain", 1.05),
        counted("pack", 2_200_000, "bytes", "trunk", 2_000_000, 1.07, "2 bits an owner"),
        counted("traces", 2, "", "plain", 2),
    ]
    table = rows_table(list(zip(("step", "file", "step"), rows, strict=True)))
    head, _, *lines = (" ".join(line.split()) for line in table.splitlines())
    assert head == "case what against ratio quartiles goal"
    assert lines == [
        "step packed plain 510 ms 500 ms 1.020 1.020 - 1.020 1.05 reached",
        "file pack trunk 2.20 MB 2.00 MB 1.100 1.07 MISSED, 2 bits an owner",
        "step traces plain 2 2 1.000",
    ]
    assert summary(rows) == ("3 comparisons; of their goals 1 reached, 0 within noise, 1 missed.")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (1.234, "s", "1.23 s"), (-1500, "bytes", "-1.50 kB"), (2, "", "2")],
)
def test_numbers_are_shown_in_the_unit_that_suits_them(value, unit, text):
    assert show(value, unit) == text


def test_sides_take_turns_after_a_warm_up_that_is_not_counted():
    calls = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = in_turns(sides, turns=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert {side: len(values) for side, values in times.items()} == {"a": 3, "b": 3}
    assert min(min(values) for values in times.values()) >= 0
