"""The command itself, in processes: what is done is kept, what fails does not stop the rest."""

import json
import signal
import subprocess
import sys
import time

import pytest

from helpers.cases import slow
from helpers.comparison_files import write_file, write_images
from packnet_tf.apps.main import main
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.running.screen import last_line
from packnet_tf.apps.research.running.worker import RESULT, alone
from packnet_tf.apps.research.runs import entries

ALONE = {"individual": None}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(write_images(tmp_path))
    return tmp_path


def compare(*arguments):
    return main(["compare", "--file=small.yaml", "--output=out", *arguments])


@pytest.mark.slow
def test_one_run_fails_and_the_others_are_reported_and_not_repeated(place, capsys):
    write_file(place, methods=ALONE)
    whole = {path: path.read_bytes() for path in (place / "greys" / "train" / "a").iterdir()}
    for path, content in whole.items():
        path.write_bytes(b"?" * len(content))
    assert compare("--jobs=2") == 1
    shown = capsys.readouterr()
    assert "Finished  individual: shades; seed 0" in shown.out
    assert "FAILED    individual: greys; seed 0" in shown.out
    assert "No image of class 'a' in 'train' can be read" in shown.out
    assert "1 of 2 runs failed; the others are in the report. Repeat the command" in shown.err
    (done,) = (place / "out" / "runs").glob(f"*/{RESULT}")
    written = done.stat().st_mtime_ns

    for path, content in whole.items():
        path.write_bytes(content)
    assert compare("--jobs=2") == 0
    shown = capsys.readouterr().out
    assert "1 of 2 runs are done already." in shown
    assert "(2 of 2," in shown
    assert done.stat().st_mtime_ns == written
    content = json.loads((place / "out" / "results.json").read_text())
    assert set(content["lines"][0]["tasks"]) == {"shades", "greys"}
    assert (place / "out" / "report.html").exists()


@pytest.mark.slow
def test_two_commands_do_not_do_the_same_run_at_once(place, capsys):
    write_file(place, methods=ALONE, tasks={"shades": {}})
    (run,) = entries(read_comparison("small.yaml"))[0].runs
    folder = place / "out" / "runs" / run.key
    folder.mkdir(parents=True)
    with alone(folder):
        assert compare() == 1
    assert (
        f"another process is at work in 'out/runs/{run.key}'. Wait for it"
        in capsys.readouterr().out
    )
    assert compare() == 0


@pytest.mark.parametrize("asked", [signal.SIGINT, *slow(signal.SIGTERM)])
def test_ctrl_c_ends_the_processes_and_the_same_command_continues(place, asked):
    write_file(place, methods=ALONE, settings={"epochs": 300, "prune_epoch": 2, "batch_size": 8})
    command = [sys.executable, "-m", "packnet_tf.apps", "compare", "--file=small.yaml"]
    process = subprocess.Popen(
        [*command, "--output=out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("Started   individual: shades; seed 0")
    log = next((place / "out" / "runs").glob("*")) / "log.txt"
    deadline = time.monotonic() + 120
    while "epoch 3/300" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(asked)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("packnet compare: interrupted. Repeat the command to continue.\n")
    trained = log.read_text()
    time.sleep(1)
    assert log.read_text() == trained  # nobody is at work any more


def test_a_dry_run_says_what_would_run_and_trains_nothing(place, capsys):
    write_file(place, orders=["given", "reverse"], seeds=[0, 1],
               methods={"packnet": {}, "individual": None, "lwf": None})  # fmt: skip
    assert compare("--dry_run") == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    assert ["greys", "greys", "3", "36", "18", "18"] in rows
    assert ["packnet", "packnet", "4", "4", "0", "min"] in rows
    assert ["individual", "individual", "4", "4", "0", "min"] in rows
    assert ["all", "12", "0", "min"] in rows
    assert "Nothing was trained." in shown
    assert not (place / "out").exists()


def test_what_cannot_be_is_said_in_a_sentence(place, capsys):
    assert main(["compare"]) == 2
    assert "--file is missing; --recipes lists those of the paper" in capsys.readouterr().err
    assert main(["compare", "--file=paper/vgg99"]) == 1
    error = capsys.readouterr().err
    assert "'paper/vgg99' is neither a .yaml file nor a recipe; recipes are: paper/dense" in error
    write_file(place, metods={})
    assert compare() == 1
    assert "Did you mean 'methods'?" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "package"), [("yaml", "pyyaml"), ("matplotlib", "matplotlib")])
def test_what_is_not_installed_is_named_before_anything_runs(module, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["compare", "--recipes"]) == 1
    assert capsys.readouterr().err == (
        f"packnet compare: This command needs {package}: pip install 'packnet_tf[apps]', or pip "
        f"install {package}.\n"
    )


def test_the_screen_shows_the_last_whole_line_of_a_log(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("")
    assert last_line(log) == ""
    log.write_text("x" * 10_000 + "\nepoch 1/3: loss 0.5\n\nepoch 2/")
    assert last_line(log) == "epoch 1/3: loss 0.5"
