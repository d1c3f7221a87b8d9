"""Files of several tasks on the command line."""

import json

import pytest

from helpers.image_folders import small_pack, write_task
from packnet_tf.apps.main import main

TASKS = {"shades": ["dark", "light"], "tones": ["dark", "light"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pack of a base and two tasks, images of one, and a file of the two."""
    folder = tmp_path_factory.mktemp("multitask")
    write_task(folder / "shades")
    small_pack(TASKS, base="base").save(folder / "pack.keras")
    export = ["export", str(folder / "pack.keras"), str(folder / "all.onnx"), "--multitask"]
    edge = ["--preprocessing=uint8", "--outputs=top_k", f"--evaluate=shades:{folder / 'shades'}"]
    assert main([*export, *edge]) == 0
    return folder


def picture(place):
    return str(next((place / "shades" / "test" / "dark").iterdir()))


def test_predict_answers_for_every_task_of_a_file(place, capsys):
    assert main(["predict", str(place / "all.onnx"), picture(place), "--json"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert [answer["task"] for answer in entry["models"]] == list(TASKS)
    assert {one["name"] for one in entry["models"][0]["top"]} == {"dark", "light"}
    assert main(["predict", str(place / "all.onnx"), picture(place), "--task=tones", "--json"]) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert [answer["task"] for answer in entry["models"]] == ["tones"]
    assert main(["predict", str(place / "all.onnx"), picture(place), "--task=birds"]) == 1
    assert "has no task 'birds'; it has 'shades', 'tones'." in capsys.readouterr().err


def test_evaluate_measures_the_task_that_is_named(place, capsys):
    model, data = str(place / "all.onnx"), str(place / "shades")
    assert main(["evaluate", model, data]) == 2
    assert "has the tasks shades, tones; name one with --task" in capsys.readouterr().err
    assert main(["evaluate", model, data, "--task=shades", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["images"]) == ("shades", 12)


def test_benchmark_and_report_take_a_file_of_several_tasks(place, tmp_path, capsys):
    model = str(place / "all.onnx")
    assert main(["benchmark", model, "--seconds=0", "--batch_sizes=1", "--json"]) == 0
    [file] = json.loads(capsys.readouterr().out)["files"]
    assert file["task"] == "shades, tones"
    quick = ["--seconds=0", "--batch_sizes=1"]
    assert main(["benchmark", model, "--task=tones", *quick]) == 0
    capsys.readouterr()
    assert main(["benchmark", model, f"--data=tones:{place / 'shades'}", *quick]) == 2
    assert f"packnet evaluate {model} --task=shades FOLDER" in capsys.readouterr().err
    page, data = tmp_path / "page.html", f"--data=shades:{place / 'shades'}"
    pack = str(place / "pack.keras")
    assert main(["report", pack, f"--html={page}", f"--model={model}", data]) == 0
    assert "shades" in page.read_text()


def test_flags_that_do_not_go_with_one_file_are_refused(place, capsys):
    pack, model = str(place / "pack.keras"), str(place / "other.onnx")
    for flag in ("--bundle", "--names=task"):
        assert main(["export", pack, model, "--multitask", flag]) == 2
        assert "--multitask writes one file" in capsys.readouterr().err
    assert main(["export", pack, str(place / "folder"), "--multitask"]) == 1
    assert "expected a name that ends in .onnx" in capsys.readouterr().err
