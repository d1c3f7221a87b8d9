"""`packnet benchmark`: what is measured of which files."""

import json
import os

import numpy as np
import pytest

from helpers.onnx_files import manifest, write_model, write_other_model, write_picture
from packnet_tf.apps.commands import benchmark as command
from packnet_tf.apps.device.timing import Latency, Timing
from packnet_tf.apps.main import main
from packnet_tf.reporting.tables import count_bytes

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
TIMING = Timing(12.3, 4_500_000, [Latency(1, 90, 2.5, 3.5, 396.0), Latency(8, 9, 16, 18, 1499.6)])


def benchmark(capsys, *arguments):
    status = main(["benchmark", *map(str, arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def measured(monkeypatch):
    """Replaces the measurement; a list of its arguments."""
    calls = []

    def noted(function, *arguments):
        assert function is command.measure
        calls.append(arguments)
        return TIMING

    monkeypatch.setattr(command, "in_fresh_process", noted)
    return calls


@pytest.fixture
def onnx(tmp_path):
    """A folder of two tasks, of which one is a classifier."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    write_other_model(folder / "model_task1.onnx", (4, 4, 3), (1, 2, 2, 5))
    write_model(folder / "model_task2.onnx", task="colours", beside="shared.data")
    manifest(folder, "model_task1.onnx", "model_task2.onnx", shared=["shared.data"])
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two of three pictures look like their class."""
    for name, colour in {"red": RED, "green": GREEN, "blue": RED}.items():
        write_picture(tmp_path / "photos" / "test" / name / "1.png", colour)
    return tmp_path / "photos"


def test_a_folder_is_measured_file_by_file_and_accuracy_where_there_are_images(
    onnx, photos, measured, capsys
):
    flags = ["--seconds=0.5", "--threads=1", "--batch_sizes=1,8", "--image-size=32"]
    status, out, err = benchmark(capsys, onnx, f"--data=colours:{photos}", *flags)
    assert (status, err) == (0, "")
    paths = [str(onnx / f"model_task{number}.onnx") for number in (1, 2)]
    sizes = [count_bytes(os.path.getsize(path)).split() for path in paths]
    rest = (0.5, "CPUExecutionProvider", 1, 32)
    assert measured == [(path, [1, 8], *rest) for path in paths]
    table, about = out.split("\n\n")
    rows = [line.split() for line in table.splitlines()]
    head = "file task size load memory batch median p90 images/s accuracy"
    assert " ".join(rows[0]) == head
    speeds = [["2.50", "ms", "3.50", "ms", "396"], ["16.00", "ms", "18.00", "ms", "1,500"]]
    loaded = ["12", "ms", "4.50", "MB", "1"]
    assert rows[2:] == [
        [paths[0], "?", *sizes[0], *loaded, *speeds[0]],
        ["8", *speeds[1]],
        [paths[1], "colours", *sizes[1], *loaded, *speeds[0], "66.7%"],
        ["8", *speeds[1]],
    ]
    whole = sum(path.stat().st_size for path in onnx.iterdir() if path.suffix != ".json")
    assert about.splitlines()[:2] == [
        f"Weights: {onnx / 'shared.data'} (36 bytes), read by colours.",
        f"In all {count_bytes(whole)}.",
    ]
    assert "CPUExecutionProvider, threads: 1; " in about


def test_json_has_the_same(onnx, photos, measured, capsys):
    _, out, _ = benchmark(capsys, onnx, f"--data=colours:{photos}", "--json")
    found = json.loads(out)
    first, second = found["files"]
    assert first["accuracy"] is None
    assert second["accuracy"] == {
        "data": str(photos / "test"),
        "images": 3,
        "accuracy": 2 / 3,
        "mean_class_accuracy": 2 / 3,
        "top5_accuracy": None,
        "errors": [],
    }
    assert (second["load_ms"], second["memory_bytes"]) == (12.3, 4_500_000)
    assert second["batches"][0] == {
        "batch": 1, "runs": 90, "median_ms": 2.5, "p90_ms": 3.5, "images_per_second": 396.0,
    }  # fmt: skip
    shared = str(onnx / "shared.data")
    assert (first["weights"], second["weights"]) == ([], [shared])
    assert found["weights"] == [{"file": shared, "bytes": 36, "tasks": ["colours"]}]
    assert found["bytes"] == first["bytes"] + second["bytes"] + 36
    assert found["machine"]["provider"] == "CPUExecutionProvider"


def test_only_the_tasks_named_are_measured(onnx, photos, measured, capsys, tmp_path):
    model = write_model(tmp_path / "m.onnx", task="colours")
    other = write_model(tmp_path / "n.onnx", task="shades")
    assert benchmark(capsys, model, other, "--task=colours", f"--data={photos}")[0] == 0
    assert [call[0] for call in measured] == [model]
    assert benchmark(capsys, onnx, "--task=model_task2.onnx", model, model)[0] == 1
    for tasks in ("moods", "colours,moods"):
        status, _, err = benchmark(capsys, model, other, f"--task={tasks}")
        assert (status, err) == (
            1,
            "packnet benchmark: No file is of the task 'moods'; their tasks are 'colours', "
            "'shades'.\n",
        )


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "name at least one .onnx file, or a folder of packnet export"),
        (["{}", "--batch_sizes=1,x"], 2, "--batch_sizes=1,x: expected whole numbers from 1"),
        (["{}", "--batch_sizes=0"], 2, "--batch_sizes=0: expected whole numbers from 1"),
        (["{}", "{}", "--data=cats:a"], 2, "--data names the task 'cats'; the tasks that give"),
        (["{}", "--data=gone"], 1, "There is no folder 'gone'."),
        (["gone.onnx"], 1, "There is no model 'gone.onnx'."),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    arguments, status, text, measured, capsys, tmp_path
):
    model = write_model(tmp_path / "m.onnx", task="colours")
    found, out, err = benchmark(capsys, *(one.format(model) for one in arguments))
    assert (found, out, measured) == (status, "", [])
    assert text in err


def test_images_that_cannot_be_read_are_reported_when_all_is_measured(photos, measured, capsys):
    (photos / "test" / "red" / "2.png").write_bytes(b"no image")
    model = write_model(photos.parent / "m.onnx", task="colours")
    status, out, err = benchmark(capsys, model, f"--data={photos}", "--json")
    assert status == 1
    assert json.loads(out)["files"][0]["accuracy"]["images"] == 3
    assert "2.png' is not a readable image" in err


def test_a_real_file_is_timed_in_a_process_of_its_own(tmp_path, capsys):
    model = write_model(tmp_path / "m.onnx", matrix=np.eye(3))
    status, out, _ = benchmark(capsys, model, "--seconds=0", "--image_size=16", "--json")
    assert status == 0
    [file] = json.loads(out)["files"]
    assert [batch["batch"] for batch in file["batches"]] == [1, 8]
    assert file["load_ms"] > 0
