"""Every benchmark on a network so small that its seconds mean nothing: what it compares."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks import (
    bundles,
    deploy,
    export,
    memory,
    multitask,
    networks,
    onnx_session,
    overlays,
    process_memory,
    prune,
    scale,
    stem,
    storage,
    train,
)
from benchmarks.command import worker
from helpers import onnx_files
from helpers.pack_helpers import run_python
from packnet_tf import PackNet

SMALL = networks.Case("TinyDarknet", 32, 4)
PUBLISHED = networks.DARKNET_LAYERS, 908_720  # and the weights of its kernels
# In place of Tiny Darknet's 15 convolutions: five with about as many weights.
LAYERS = ((16, 3), "P", (64, 3), "P", (128, 3), "P", (512, 3), "P", (128, 1))
KERNELS = 9 * (3 * 16 + 16 * 64 + 64 * 128 + 128 * 512) + 512 * 128
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def few_layers(monkeypatch):
    monkeypatch.setattr(networks, "DARKNET_LAYERS", LAYERS)


def pairs(rows):
    """What is compared with what, once every row has been found to be a sound one."""
    assert all(row.value > 0 and row.base > 0 for row in rows)
    return [(row.what, row.against) for row in rows]


def command(module, *flags):
    """Runs a benchmark as its users do."""
    arguments = [sys.executable, "-m", module, *flags]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_train_compares_both_tasks_with_plain_keras_and_the_trainer_with_fit(monkeypatch):
    monkeypatch.setattr(train, "EPOCH", 0.1)
    monkeypatch.setattr(train, "STEPS", 2)
    assert pairs(train.measure(SMALL, 1)) == [
        ("task 1", "plain"),
        ("task 3", "plain"),
        ("task 3", "task 1"),
        ("overlay", "plain"),
        ("plain again", "plain"),
        ("PackTrainer", "fit"),
    ]


@pytest.mark.slow
def test_training_is_measured_on_jax_too():
    pytest.importorskip("jax")
    code = (
        "from benchmarks import networks, train\n"
        "train.STEPS = 1\n"
        f"networks.DARKNET_LAYERS = {LAYERS}\n"
        "rows = train.measure(networks.Case('TinyDarknet', 32, 4), 1)\n"
        "print([row.what for row in rows])\n"
    )
    done = run_python(code, KERAS_BACKEND="jax", PYTHONPATH=str(ROOT))
    sides = "['task 1', 'task 3', 'task 3', 'overlay', 'plain again']\n"
    assert done.stdout == sides, done.stderr


def test_train_has_every_network_mode_and_optimizer():
    assert len(train.CASES) == 5 * 3 * 2
    assert train.CASES["ResNet50 64 px x 32, XLA, Adam"].goal == 1.02


@pytest.mark.slow
def test_memory_says_what_packing_takes_per_weight():
    _, kernels = PUBLISHED  # in processes of its own
    peak, more_peak, kept, more_kept = memory.measure(SMALL, 1)
    assert peak.value > kept.value > kept.base > 4 * kernels
    assert more_peak.base == more_kept.base == 6 * kernels
    assert more_peak.value == peak.value - peak.base
    assert more_kept.value == kept.value - kept.base


def test_prune_compares_with_partition_and_checks_the_counts(monkeypatch):
    rows = prune.measure(("TinyDarknet", 32), 1)
    assert pairs(rows) == [
        ("net.prune", "numpy.partition"),
        ("memory of net.prune", "largest layer"),
    ]
    assert rows[0].note == f"{KERNELS // 2:,} of {KERNELS:,} released, exactly"
    exact = PackNet.prune

    def one_more(net, ratio):
        released = exact(net, ratio)
        return {**released, next(iter(released)): released[next(iter(released))] + 1}

    monkeypatch.setattr(PackNet, "prune", one_more)
    with pytest.raises(RuntimeError) as error:
        prune.measure(("TinyDarknet", 32), 1)
    assert "the counts are not exact" in str(error.value)


@pytest.mark.slow
def test_storage_compares_seconds_and_bytes_with_keras():
    rows = storage.measure(("TinyDarknet", 32), 1)
    assert pairs(rows) == [
        ("net.save", "model.save"),
        ("net.save", "model.save, flushed"),
        ("packnet_tf.load", "load_model"),
        ("pack without heads", "trunk"),
        ("also without norms per task", "trunk"),
    ]
    assert 1.0 < rows[4].ratio < rows[3].ratio < 1.2


@pytest.mark.slow
def test_overlays_take_little_of_a_network():
    rows = {row.what: row.ratio for row in overlays.measure(("TinyDarknet", 32), 1)}
    assert list(rows) == [
        "in a pack", "in a pack, without norms", "in a bundle", "in a bundle, without norms",
    ]  # fmt: skip
    for place in ("in a pack", "in a bundle"):
        assert 4 * 0.02 / 4 < rows[f"{place}, without norms"] + 0.001 < rows[place] < 0.033


@pytest.mark.slow
def test_export_compares_with_tf2onnx():
    assert pairs(export.measure(("TinyDarknet", 32), 1)) == [("export_onnx", "tf2onnx")]


@pytest.mark.slow
def test_deploy_measures_every_form_against_its_base(monkeypatch):
    monkeypatch.setattr(deploy, "BUDGET", 0.0)  # seconds: one turn each
    rows = {row.what: row for row in deploy.measure(("TinyDarknet", 32), 1)}
    sizes = {what: row.value for what, row in rows.items() if row.against == "one baked"}
    assert sizes["bundle"] == sizes["its graphs, heads and norms"] + sizes["its shared.data"]
    assert sizes["its shared.data"] >= KERNELS * (4 + 2 / 8)  # float32, and an owner in 2 bits
    assert sizes["all baked"] > 4 * KERNELS * 4
    assert {"one float16", "one int8", "one never packed", "pack.keras"} < set(sizes)
    for form, base in deploy.AGAINST.items():
        for what in ("load", "resident", "load peak", "batch 1", "batch 32"):
            row = rows[f"{form}, {what}"]
            assert row.against == f"{base}, {what}"
            assert row.value > 0


def test_a_file_is_timed_in_a_process_without_keras(tmp_path):
    path = onnx_files.write_other_model(tmp_path / "m.onnx", (4, 4, 3), (1, 10_000_000))
    with worker() as process:
        loaded = process.submit(onnx_session.load, path).result()
        (once,) = process.submit(onnx_session.time_runs, 2, 0).result()
        times = process.submit(onnx_session.time_runs, 2, 0.05).result()
        modules = process.submit(eval, "set(__import__('sys').modules)").result()
    assert loaded["seconds"] > 0
    assert 40e6 < loaded["resident"] <= loaded["load peak"]
    assert once > 0
    assert sum(times[:-1]) < 0.05 <= sum(times)
    assert not {"keras", "tensorflow", "onnx"} & modules


def test_memory_counts_what_is_taken_and_the_peak_of_what_was():
    before = process_memory.memory()
    block = np.ones(50_000_000, np.uint8)
    held = process_memory.memory()
    assert held.own - before.own >= 49_000_000
    assert held.own <= held.resident <= held.peak
    del block
    assert process_memory.memory().peak >= held.resident - 1_000_000
    process_memory.restart_peak()
    assert process_memory.memory().peak < held.resident - 40_000_000


def test_memory_counts_what_fits_into_memory_that_was_freed_before():
    blocks = [np.ones(40_000, np.uint8) for _ in range(500)]
    last = blocks[-1]  # what is freed below it stays with the C library
    del blocks
    process_memory.restart_peak()
    before = process_memory.memory().resident
    blocks = [np.ones(40_000, np.uint8) for _ in range(400)]
    assert process_memory.memory().peak - before > 15_000_000
    assert last.size == blocks[0].size


@pytest.mark.slow
def test_multitask_compares_one_file_with_one_task_and_with_five_files(monkeypatch):
    monkeypatch.setattr(multitask, "TURNS", 1)
    rows = {row.what: row for row in multitask.measure(("TinyDarknet", 32, "max_pooling2d_3"), 1)}
    assert len(pairs(rows.values())) == 2 * (3 + 2 + 2)
    assert rows["float32, five files, size"].ratio == pytest.approx(5, abs=0.001)
    assert 1 < rows["float32, multitask, size"].ratio < 5
    assert rows["int8, one of five"].against == "int8, one task"


@pytest.mark.slow
def test_bundles_counts_what_tasks_share_and_the_kernels_of_each(monkeypatch):
    layers, kernels = PUBLISHED
    monkeypatch.setattr(networks, "DARKNET_LAYERS", layers)
    monkeypatch.setattr(bundles, "PIXELS", 32)
    weights, calibrated = bundles.measure(("TinyDarknet", 4), 1)
    assert weights.base == calibrated.base == 4 * kernels
    # A byte a weight and 2 bits of its owner; besides, the smallest kernels in 2 bytes, or once
    # for each task.
    assert 1.25 / 4 < weights.ratio < calibrated.ratio < 0.33


@pytest.mark.slow
def test_stem_compares_steps_with_and_without_one(monkeypatch):
    monkeypatch.setattr(stem, "STEMS", {"TinyDarknet": "max_pooling2d"})
    monkeypatch.setattr(stem, "STEPS", 1)
    keras.utils.clear_session()  # numbers the trunk's layers from the first
    assert pairs(stem.measure(SMALL, 1)) == [("stem", "no stem"), ("stored features", "no stem")]


@pytest.mark.slow
def test_scale_compares_many_tasks_with_one_and_counts_no_more_traces_than_plain_keras(monkeypatch):
    monkeypatch.setattr(scale, "CASE", SMALL)
    *timed, size, traces = scale.measure(3, 1)
    assert {against for _, against in pairs(timed)} == {"1 task"}
    assert size.note.startswith("2 bits an owner")
    assert (traces.value, traces.verdict) == (traces.base, "reached")


@pytest.mark.slow
def test_a_benchmark_prints_a_table_and_keeps_its_rows(tmp_path):
    path = tmp_path / "found.json"
    done = command("benchmarks.export", "--only=Tiny,net", "--repeats=1", f"--json={path}")
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert (found["bench"], found["repeats"]) == ("python -m benchmarks.export", 1)
    assert found["machine"]["versions"]["keras"] == keras.__version__
    assert [(row["case"], row["what"]) for row in found["rows"]] == [
        ("TinyDarknet 96 px", "export_onnx")
    ]
    assert "1 comparisons; of their goals 0 reached" in done.stdout


def test_flags_that_fit_no_case_are_refused_with_status_2():
    done = command("benchmarks.storage", "--only=VGG17")
    assert done.returncode == 2
    assert done.stderr.endswith("error: no case has all words of --only=VGG17\n")


def test_the_list_names_every_benchmark_with_its_first_line():
    lines = command("benchmarks").stdout.splitlines()
    for module in (train, memory, prune, storage, export, deploy, scale):
        summary = module.__doc__.splitlines()[0]
        name = module.__name__
        assert any(line.split()[:3] == ["python", "-m", name] and summary in line for line in lines)
