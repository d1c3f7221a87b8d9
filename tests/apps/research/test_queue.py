"""The command itself, in processes: what is done is kept, what fails does not stop the rest."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from helpers.cases import slow
from helpers.comparison_files import write_file, write_images
from packnet_tf.apps.main import main
from packnet_tf.apps.research.config import read_comparison
from packnet_tf.apps.research.running.engines import (
    Processes,
    Slurm,
    environment,
    visible_gpus,
)
from packnet_tf.apps.research.running.queue import work_off
from packnet_tf.apps.research.running.screen import last_line
from packnet_tf.apps.research.running.worker import BUSY, ERROR, RESULT, RUN
from packnet_tf.apps.research.runs import entries
from packnet_tf.backend.writers import locked

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


def start(place, *arguments):
    command = [sys.executable, "-m", "packnet_tf.apps", "compare", "--file=small.yaml"]
    return subprocess.Popen(
        [*command, "--output=out", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
    )


def the_runs():
    return [run for entry in entries(read_comparison("small.yaml")) for run in entry.runs]


@pytest.mark.slow
def test_a_run_of_another_command_is_waited_for_and_taken_if_that_one_dies(place):
    write_file(place, methods=ALONE)
    first, second = the_runs()
    folder = place / "out" / "runs" / first.key
    folder.mkdir(parents=True)
    with locked(folder / RUN):
        process = start(place)
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0] == f"Elsewhere {first.title}  ({first.key}), another command has it\n"
        assert lines[1] == f"Started   {second.title}  ({second.key})\n"
        assert lines[2].startswith(f"Finished  {second.title}  (1 of 2, ")
        assert process.poll() is None
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out.startswith(f"Started   {first.title}  ({first.key})\n")


def test_a_run_that_another_command_fails_at_is_not_tried_again(place):
    write_file(place, methods=ALONE, tasks={"shades": {}})
    (run,) = the_runs()
    folder = place / "out" / "runs" / run.key
    folder.mkdir(parents=True)
    with locked(folder / RUN):
        process = start(place)
        assert (
            process.stdout.readline()
            == f"Elsewhere {run.title}  ({run.key}), another command has it\n"
        )
        (folder / ERROR).write_text("it has no images")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out.startswith(f"FAILED    {run.title}  (1 of 1, by another command)\n")
    assert "it has no images" in out


class OneAtATime(Processes):
    """An engine that takes no second worker, as a cluster with a limit on jobs."""

    last = None

    def start(self, folder):
        if self.last is not None and self.last.poll() is None:
            raise RuntimeError("You have reached the limit of jobs")
        self.last = super().start(folder)
        return self.last


@pytest.mark.slow
def test_where_no_more_can_be_started_runs_wait(place):
    write_file(place, methods={"classifier_only": None})
    runs = the_runs()
    engine = OneAtATime(2)
    outcome = work_off(runs, place / "runs", engine)
    assert (outcome.done, outcome.failed) == (2, {})


def test_an_engine_that_starts_nothing_ends_the_command(place):
    write_file(place, methods=ALONE)
    engine = OneAtATime(2)
    engine.last = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(RuntimeError, match="the limit of jobs"):
        work_off(the_runs(), place / "runs", engine)
    engine.last.kill()
    engine.last.wait()


@pytest.mark.slow
def test_two_commands_share_the_runs(place):
    write_file(place, methods=ALONE, seeds=[0, 1])
    runs = the_runs()
    processes = [start(place), start(place)]
    shown = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for run in runs:
        for out in shown:
            assert f"Finished  {run.title}" in out
        log = (place / "out" / "runs" / run.key / "log.txt").read_text()
        assert log.count("epoch 1/3") == 1  # trained once
    assert all("Started" in out for out in shown)


def test_a_worker_leaves_a_run_that_another_one_is_at_work_on(place):
    write_file(place, methods=ALONE, tasks={"shades": {}})
    (run,) = the_runs()
    run.write(place / "run.json")
    with locked(place / RUN):
        worker = Processes(1).start(place)
        worker.wait()
    assert worker.poll() == BUSY
    assert not (place / ERROR).exists()


@pytest.mark.slow
def test_jobs_of_a_cluster_do_the_same(place):
    """submitit's own executor for one machine stands for Slurm."""
    write_file(place, methods={"classifier_only": None})
    runs = the_runs()
    engine = Slurm(place / "slurm", {"timeout_min": 5}, 2, cluster="local")
    outcome = work_off(runs, place / "out" / "runs", engine)
    assert (outcome.done, outcome.failed) == (len(runs), {})
    image = next((place / "greys" / "test" / "a").iterdir())
    assert compare() == 0  # nothing is left to do
    image.unlink()  # the folder is another one now, and one run has no result
    for path in (place / "greys" / "train" / "a").iterdir():
        path.write_bytes(b"?" * path.stat().st_size)
    outcome = work_off(the_runs(), place / "out" / "runs", engine)
    (error,) = outcome.failed.values()
    assert "No image of class 'a' in 'train' can be read" in error


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_each_process_has_the_gpu_that_the_fewest_use(place, monkeypatch):
    write_file(place, methods=ALONE, tasks={"shades": {}})
    (run,) = the_runs()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7,-1")
    engine = Processes(3, visible_gpus())
    folders = [place / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        run.write(folder / "run.json")
    workers = [engine.start(folder) for folder in folders]
    found = [gpu_of(worker) for worker in workers]
    workers[1].stop()
    workers[1].wait()
    workers.append(engine.start(folders[1]))
    found.append(gpu_of(workers[-1]))
    for worker in workers:
        worker.stop()
        worker.wait()
    assert found == ["5", "7", "5", "7"]


def gpu_of(worker):
    file = pathlib.Path(f"/proc/{worker.process.pid}/environ")
    while not (variables := file.read_text().split("\0")[:-1]):
        time.sleep(0.01)  # it is about to begin
    return dict(line.split("=", 1) for line in variables)["CUDA_VISIBLE_DEVICES"]


def test_without_gpus_the_environment_stays(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    assert environment(1, None) == {}
    assert environment(1, "3") == {"CUDA_VISIBLE_DEVICES": "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slurm=timeout_min=3"], "--slurm has no effect without --engine=slurm"),
        (["--engine=slurm", "--slurm=gpu"], "--slurm takes NAME=VALUE,...; got 'gpu'. Write"),
        (["--engine=slurm", "--slurm=mem_gb=1.5"], "needs the most minutes that a run may take"),
    ],
)
def test_settings_of_jobs_are_checked(arguments, message, place, capsys):
    write_file(place, methods=ALONE)
    assert compare(*arguments) == 2
    assert message in capsys.readouterr().err


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
    assert last_line(log) == ""  # a job that waits for its turn has none
    log.write_text("")
    assert last_line(log) == ""
    log.write_text("x" * 10_000 + "\nepoch 1/3: loss 0.5\n\nepoch 2/")
    assert last_line(log) == "epoch 1/3: loss 0.5"
