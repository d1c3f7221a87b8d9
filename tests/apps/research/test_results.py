"""From results to lines, on made-up results worked out by hand."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest

from helpers.comparison_files import SMALL
from helpers.made_up_results import entry, keep, many_tasks, run_of
from packnet_tf.apps.research.config import parse
from packnet_tf.apps.research.results import report
from packnet_tf.apps.research.results.figures import pareto_front
from packnet_tf.apps.research.results.sentences import verdict
from packnet_tf.apps.research.results.summary import choose, collect, lines, write_csv
from packnet_tf.apps.research.results.tables import percent
from packnet_tf.apps.research.running.worker import RESULT

BYTES = {"bytes": 110, "task_bytes": 10, "one_network_bytes": 100, "network_per_task_bytes": 200}
ONE = {**BYTES, "network_per_task_bytes": 100}
CAPACITY = {
    "tasks": ["shades", "greys"],
    "layers": {
        "conv": {"total": 4, "free": 1, "claimed": 0, "owned": {"shades": 2, "greys": 1}},
    },
}


def comparison(**changes):
    methods = {"packnet": {}, "individual": {}, "classifier_only": {}, "joint": {}}
    return parse({**SMALL, "seeds": [0, 1], "methods": methods, **changes}, pathlib.Path("."))


@pytest.fixture
def made_up(tmp_path):
    """Two seeds of packnet, an individual network per task, a classifier and joint training."""
    order, found = ("shades", "greys"), []
    moments = {"before_prune": 0.75, "after_prune": 0.5, "retrained": 0.75}
    packed = {"ratios": {"shades": 0.5, "greys": 0.0}, "capacity": CAPACITY}
    packed["moments"] = {"shades": moments, "greys": moments}
    for seed, (first, second) in enumerate([(0.5, 0.75), (0.75, 1.0)]):
        run = keep(
            tmp_path, run_of("packnet", order, seed), [[first], [first, second]], **BYTES, **packed
        )
        found.append(entry("packnet", [run], order, seed))
        for kind, gain in (("individual", 0.0), ("classifier_only", -0.25)):
            runs = [
                keep(tmp_path, run_of(kind, [name], seed), [[value + gain]], **ONE)
                for name, value in (("shades", 0.75), ("greys", 0.75))
            ]
            found.append(entry(kind, runs, seed=seed))
        run = keep(tmp_path, run_of("joint", order, seed), [[0.5, 0.5]], **BYTES)
        found.append(entry("joint", [run], seed=seed))
    return tmp_path, found


def test_lines_are_means_over_seeds_with_the_gap_to_individual_networks_of_the_same_seed(made_up):
    folder, found = made_up
    packnet, individual, classifier, joint = lines(comparison(), collect(found, folder))
    assert packnet.tasks == {"shades": (0.625, 0.125 * 2**0.5), "greys": (0.875, 0.125 * 2**0.5)}
    assert packnet.acc == (0.75, 0.125 * 2**0.5)
    assert packnet.bwt == packnet.forgetting == (0.0, 0.0)
    assert packnet.gaps["shades"] == (0.125, 0.125 * 2**0.5)
    assert packnet.gap == (0.0, 0.125 * 2**0.5)
    assert packnet.seeds == (0, 1)
    assert (packnet.of_one, packnet.of_all) == ((1.1, 0.0), (0.55, 0.0))
    assert individual.acc == (0.75, 0.0)
    assert individual.bytes == (220.0, 0.0)
    assert individual.bwt is None
    assert classifier.bytes == (120.0, 0.0)  # one trunk, two heads
    assert classifier.gap == (0.25, 0.0)
    assert joint.forgetting is None
    assert joint.gap == (0.25, 0.0)


def test_runs_without_a_result_are_left_out_and_the_rest_is_reported(made_up):
    folder, found = made_up
    (folder / found[0].runs[0].key / RESULT).unlink()
    packnet, *_ = lines(comparison(), collect(found, folder))
    assert packnet.seeds == (1,)
    assert packnet.acc == (0.875, 0.0)


def test_validation_chooses_and_test_is_not_looked_at(tmp_path):
    good_on_test = keep(tmp_path, run_of("joint", ["a"], 0, n=1), [[1.0]], [[0.25]], **BYTES)
    good = keep(tmp_path, run_of("joint", ["a"], 0, n=2), [[0.5]], [[0.75]], **BYTES)
    found = [
        entry("it", [good_on_test], candidate={"learning_rate": 0.1}),
        entry("it", [good], candidate={"learning_rate": 0.2}),
    ]
    (chosen,) = choose(collect(found, tmp_path))
    assert chosen.entry.candidate == {"learning_rate": 0.2}
    assert choose([]) == []


def test_candidates_are_compared_on_the_seeds_that_both_have(tmp_path):
    """The second is better on average over what it has, and worse where both have something."""
    found = []
    for n, scores in ((1, {0: 0.5, 1: 0.25}), (2, {0: 0.375, 2: 1.0})):
        for seed, score in scores.items():
            run = keep(tmp_path, run_of("joint", ["a"], seed, n=n), [[score]], **BYTES)
            found.append(entry("it", [run], candidate={"n": n}, seed=seed))
    assert [m.entry.candidate["n"] for m in choose(collect(found, tmp_path))] == [1, 1]
    more = keep(tmp_path, run_of("joint", ["a"], 1, n=3), [[0.875]], **BYTES)  # it diverged else
    found.append(entry("it", [more], candidate={"n": 3}, seed=1))
    assert [m.entry.candidate["n"] for m in choose(collect(found, tmp_path))] == [1, 1]
    apart = [found[0], found[3]]
    assert [m.entry.candidate["n"] for m in choose(collect(apart, tmp_path))] == [2]


def test_the_csv_has_a_row_per_task_of_every_run(made_up, tmp_path):
    folder, found = made_up
    write_csv(tmp_path / "results.csv", lines(comparison(), collect(found, folder)))
    with open(tmp_path / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4
    assert rows[0] == {
        "method": "packnet", "order": "shades greys", "seed": "0", "task": "shades", "place": "1",
        "test_when_learnt": "0.500000", "test_at_the_end": "0.500000", "prune_ratio": "0.5",
        "validation_before_prune": "0.75", "validation_after_prune": "0.5",
        "validation_retrained": "0.75", "bytes": "110", "seconds": "60.0",
    }  # fmt: skip


def test_the_report_is_a_table_json_csv_pictures_and_one_page(made_up):
    folder, found = made_up
    (folder / "runs").mkdir()
    for path in list(folder.iterdir()):
        if path.name != "runs":
            path.rename(folder / "runs" / path.name)
    rng = np.random.default_rng(0)
    filters = {
        name: rng.normal(size=(3, 3, 3, 4)) for name in ("trunk", "task shades", "task greys")
    }
    np.savez(folder / "runs" / found[0].runs[0].key / "filters.npz", **filters)
    published = {"the paper": {"shades": 25.0, "greys": 12.5}}
    text = report.write_report(comparison(published_errors=published), found, folder)
    rows = [line.split() for line in text.splitlines()]
    assert [row for row in rows if row[:1] == ["packnet"]][-1] == [
        "packnet", "75.0", "±17.7", "0.0", "±0.0", "0.0", "±0.0", "0.0", "±17.7", "110", "bytes",
        "1.100", "0.550", "1.0", "min",
    ]  # fmt: skip
    shades = next(row for row in rows if row[:1] == ["shades"])
    assert shades[1:3] == ["62.5", "±17.7"]
    assert shades[-1] == "75.0"  # published
    assert next(row for row in rows if row[:1] == ["mean"])[-1] == "81.2"
    assert text.splitlines()[1] == (
        "packnet gets 75.0% of test images right on average over 2 tasks, in 1.10 times the bytes "
        "of one network. Individual networks, 2.20 times, get 75.0%: the same. Linear heads on the "
        "frozen trunk get 50.0%: packing has 25.0 points more."
    )
    content = json.loads((folder / "results.json").read_text())
    assert [line["title"] for line in content["lines"]] == [
        "packnet", "individual", "classifier_only", "joint"
    ]  # fmt: skip
    assert content["lines"][0]["runs"][1]["test"] == [[0.75], [0.75, 1.0]]
    page = (folder / "report.html").read_text()
    assert text.splitlines()[1] in page
    assert page.count("data:image/svg+xml;base64,") == 6
    assert "http" not in page.replace("http-equiv", "")  # nothing from elsewhere
    assert "Around the prune" in page
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "accuracy.svg", "matrix.svg", "storage.svg", "ratio.svg", "owners.svg", "filters.svg"
    }  # fmt: skip
    again = {path.name: path.read_text() for path in (folder / "figures").iterdir()}
    report.write_report(comparison(published_errors=published), found, folder)
    for path in (folder / "figures").iterdir():
        assert path.read_text() == again[path.name]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(2, 90), (1, 80), (3, 85)], [(1, 80), (2, 90)]),
        ([(1, 80), (2, 80)], [(1, 80)]),  # more bytes for as much
        ([(1, 80), (1, 81)], [(1, 81)]),
        ([(3, 1), (2, 2), (1, 3)], [(1, 3)]),
    ],
)
def test_the_front_has_the_methods_that_no_other_beats_in_both(points, front):
    assert pareto_front(points) == pareto_front(points[::-1]) == front


def test_a_linear_head_in_place_of_a_trained_network_is_named(made_up):
    folder, found = made_up
    of_individual = [run for e in found if e.label == "individual" for run in e.runs]
    for run, why in zip(of_individual, ("better", "better", "diverged", None), strict=True):
        path = folder / run.key / RESULT
        heads = {run.tasks[0]["name"]: why} if why else {}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"linear_heads": heads}))
    (folder / "runs").symlink_to(folder)
    text = report.write_report(comparison(), found, folder)
    assert (
        "\nindividual has the linear head on 'shades (seed 0)', 'greys (seed 0)': training "
        "ended below it.\n"
    ) in text
    said = "WARNING: individual diverged on 'shades (seed 1)', and has the linear head there."
    assert said in text
    page = (folder / "report.html").read_text()
    assert "individual diverged on" in page
    assert "individual has the linear head on" in page


def test_a_report_in_place_of_another_comparisons_says_so(made_up):
    folder, found = made_up
    (folder / "runs").symlink_to(folder)
    old = {"methods": {"wsn": {}, "cpg": {}}, "tasks": {"shades": {}}}
    (folder / "results.json").write_text(json.dumps(old))
    said = "This replaces the report of another comparison (wsn, cpg)."
    assert said in report.write_report(comparison(), found, folder)
    assert said not in report.write_report(comparison(), found, folder)
    (folder / "results.json").write_text("[]")
    assert said not in report.write_report(comparison(), found, folder)


def test_without_any_result_it_says_so(tmp_path):
    order = ("shades", "greys")
    found = [entry("packnet", [run_of("packnet", order, 0)], order)]
    text = report.write_report(comparison(), found, tmp_path)
    assert text == "No run has a result: there is nothing to report."
    assert not list(tmp_path.iterdir())


def test_a_line_is_named_after_its_order_and_says_which_seeds_it_lacks():
    three = {"a": {}, "b": {}, "c": {}}
    orders = ["given", "reverse", ["b", "a", "c"]]
    compared = comparison(tasks=three, orders=orders, methods={"lwf": {}})

    class Named:
        label = "lwf"

        def __init__(self, order, seeds=(0, 1)):
            self.order, self.seeds = order, seeds

    titles = [report.title_of(Named(order), compared) for order in (*compared.orders, None)]
    assert titles == ["lwf", "lwf, reverse", "lwf, b > a > c", "lwf"]
    assert report.title_of(Named(None, (1,)), compared) == "lwf (1 of 2 seeds)"


def test_the_deviation_of_one_seed_is_not_shown(made_up):
    folder, found = made_up
    first, *_ = lines(comparison(seeds=[0]), collect(found[:1], folder))
    assert percent(first.acc, first) == "62.5"
    both, *_ = lines(comparison(), collect(found, folder))
    assert percent(both.acc, both) == "75.0 ±17.7"
    assert percent(None, both) == "-"


def test_the_verdict_without_packing_names_the_best_method(made_up):
    folder, found = made_up
    others = [(line.label, line) for line in lines(comparison(), collect(found, folder))][1:]
    assert verdict(comparison(), others) == (
        "Best is individual: 75.0% of test images right on average over 2 tasks."
    )


def test_the_verdict_says_that_it_took_the_best_of_several_rows(tmp_path):
    found = many_tasks(tmp_path, ["birds"], ["packnet", "other"])
    methods = {"packnet": {}, "other": {"method": "packnet"}, "individual": {}}
    compared = comparison(tasks={"birds": {}}, methods=methods, seeds=[0])
    titled = [(line.label, line) for line in lines(compared, collect(found, tmp_path))]
    assert re.match(
        r"(packnet|other), the best of 2 packed rows by test accuracy, gets \d\d\.\d% of test "
        r"images right, in 1\.30 times the bytes of one network\. ",
        verdict(compared, titled),
    )
    assert verdict(compared, titled[:1]).startswith("packnet gets ")


def test_runs_without_a_result_are_named_in_the_report(made_up):
    folder, found = made_up
    (folder / found[0].runs[0].key / RESULT).unlink()
    (folder / "runs").mkdir()
    for path in list(folder.iterdir()):
        if path.name != "runs":
            path.rename(folder / "runs" / path.name)
    text = report.write_report(comparison(), found, folder)
    sentence = f"packnet: the run {found[0].runs[0].key} has no result (packnet: shades, greys; "
    assert sentence + "seed 0)." in text
    assert sentence in (folder / "report.html").read_text()
    assert "packnet (1 of 2 seeds)" in text
