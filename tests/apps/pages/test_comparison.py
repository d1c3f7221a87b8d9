"""The page of a comparison, in a real browser."""

import pathlib

import pytest

from helpers.browser import check_page, lay_out, needs_browser
from helpers.comparison_files import SMALL
from helpers.made_up_results import many_tasks
from packnet_tf.apps.research.config import parse
from packnet_tf.apps.research.results.report import write_report

LABELS = ["packnet", "packnet, the paper's rules", "packnet with <b>gradual</b> pruning & cosine"]


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """A page of ten tasks and four methods."""
    folder = tmp_path_factory.mktemp("ten")
    names = [f"task_{number}_with_a_long_name" for number in range(10)]
    (folder / "runs").mkdir()
    found = many_tasks(folder / "runs", names, LABELS)
    methods = {label: {"method": "packnet"} for label in LABELS} | {"individual": {}}
    changes = {"tasks": {name: {} for name in names}, "seeds": [0], "methods": methods}
    write_report(parse({**SMALL, **changes}, pathlib.Path(".")), found, folder)
    return folder


@needs_browser
def test_ten_tasks_fit_on_a_page_wide_and_narrow(ten, tmp_path):
    found = lay_out(ten / "report.html", tmp_path)
    check_page(found)
    assert found["wide"]["pictures"] == 5
    text = found["wide"]["text"]
    assert text.splitlines()[0] == "10 tasks in one network"
    assert "gets" in text.splitlines()[2]  # the verdict is the first paragraph
    assert "packnet with <b>gradual</b> pruning & cosine" in text
    assert "±" not in text.partition("Test accuracy in %")[0]
