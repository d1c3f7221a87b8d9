"""What there is to run: once each, and again when anything it depends on has changed."""

import os
import shutil

import pytest

import packnet_tf
from helpers.comparison_files import write_file, write_images
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.runs import Run, entries


@pytest.fixture
def place(tmp_path):
    return write_images(tmp_path)


def keys(path, **changes):
    found = entries(read_comparison(write_file(path, **changes)))
    return [run.key for entry in found for run in entry.runs]


def test_methods_that_learn_each_task_alone_have_a_run_per_task_whatever_the_order(place):
    path = write_file(place, orders=["given", "reverse"], seeds=[0, 1],
                      methods={"packnet": {}, "individual": {}, "joint": {}})  # fmt: skip
    found = entries(read_comparison(path))
    by_label = {
        label: [e for e in found if e.label == label]
        for label in ("packnet", "individual", "joint")
    }
    assert [(e.order, e.seed) for e in by_label["packnet"]] == [
        (("shades", "greys"), 0), (("greys", "shades"), 0),
        (("shades", "greys"), 1), (("greys", "shades"), 1),
    ]  # fmt: skip
    assert [[len(run.tasks) for run in e.runs] for e in by_label["individual"]] == [[1, 1], [1, 1]]
    assert [len(e.runs[0].tasks) for e in by_label["joint"]] == [2, 2]
    assert all(e.order is None for e in (*by_label["individual"], *by_label["joint"]))


def test_the_same_work_has_the_same_key_wherever_its_files_lie(place, tmp_path_factory):
    before = keys(place)
    assert keys(place) == before
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(place, elsewhere)
    assert keys(elsewhere) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1]},
        {"settings": {"epochs": 4, "prune_epoch": 2, "learning_rate": 0.05, "batch_size": 8}},
        {"tasks": {"shades": {"flip": False}, "greys": {}}},
        {"methods": {"packnet": {"norms": "shared"}, "individual": None}},
    ],
)
def test_whatever_changes_the_result_changes_the_key(place, changes):
    assert keys(place)[0] != keys(place, **changes)[0]


def test_another_image_or_another_trunk_changes_the_key(place):
    before = keys(place)
    next((place / "greys" / "train" / "a").iterdir()).unlink()
    packed, shades, greys = keys(place)
    assert packed != before[0]
    assert shades == before[1]  # that network never sees the greys
    assert greys != before[2]
    with open(place / "small.keras", "ab") as file:
        file.write(b" ")
    assert keys(place)[1] != shades


def test_names_that_are_no_text_and_folders_within_a_class_count(place):
    path = next((place / "greys" / "train" / "a").iterdir())
    before = keys(place)
    (path.parent / "within").mkdir()
    path = path.rename(path.parent / "within" / path.name)
    moved = keys(place)
    assert moved[2] != before[2]
    try:
        path.rename(os.fsdecode(os.fsencode(path.parent) + b"/gr\xfcn.png"))
    except OSError:
        pytest.skip("this file system takes text only")
    assert keys(place)[2] not in (before[2], moved[2])


def test_results_of_another_version_do_not_count(place, monkeypatch):
    before = keys(place)
    monkeypatch.setattr(packnet_tf, "__version__", "99.0.0")
    assert not set(keys(place)) & set(before)


def test_equal_runs_under_two_labels_are_one(place):
    same = {"one": {"method": "packnet"}, "two": {"method": "packnet", "gradual": True}}
    one, two = keys(place, methods=same)
    assert one == two


def test_a_run_is_read_as_it_was_written(place):
    run = entries(read_comparison(write_file(place)))[0].runs[0]
    run.write(place / "run.json")
    assert Run.read(place / "run.json") == run
    assert Run.read(place / "run.json").key == run.key
    assert run.title == "packnet: shades, greys; seed 0"


def test_titles_tell_apart_what_a_comparison_runs(place):
    rows = {"own": {"method": "individual", "choose": {"learning_rate": [0.1, 0.2]}}}
    path = write_file(place, methods={**rows, "packnet": {}})
    titles = [run.title for entry in entries(read_comparison(path)) for run in entry.runs]
    assert titles == [
        "own, learning_rate 0.1: shades; seed 0",
        "own, learning_rate 0.1: greys; seed 0",
        "own, learning_rate 0.2: shades; seed 0",
        "own, learning_rate 0.2: greys; seed 0",
        "packnet: shades, greys; seed 0",
    ]


def test_a_title_names_six_tasks_at_most():
    tasks = [{"name": name} for name in "abcdefg"]
    titles = [Run("joint", {}, {}, None, 3, tuple(tasks[:count])).title for count in (6, 7)]
    assert titles == [
        "joint: a, b, c, d, e, f; seed 3",
        "joint: a, b, c, d, e, ... (7 tasks); seed 3",
    ]


def test_folders_are_checked_before_anything_runs(place):
    path = write_file(place, tasks={"shades": {}, "greys": {}, "blues": {}})
    with pytest.raises(FileNotFoundError, match=r"^task 'blues': There is no folder '.*blues'"):
        entries(read_comparison(path))
    path = write_file(place, trunk={"network": "other.keras"})
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*other.keras'\. Paths in the"):
        entries(read_comparison(path))
    shutil.rmtree(place / "greys" / "test")
    with pytest.raises(ValueError, match=r"task 'greys': '.*greys' has no folder 'test'"):
        entries(read_comparison(write_file(place)))
