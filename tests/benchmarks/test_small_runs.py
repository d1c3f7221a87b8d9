"""Every bench on a network so small that its seconds mean nothing: what it compares is checked."""

import json
import re
import sys

import pytest

from benchmarks import (
    cases,
    export,
    imports,
    infer,
    inputs,
    memory,
    memory_counters,
    prune,
    reference,
    scale,
    storage,
    train,
)
from helpers.pack_helpers import run_python
from packnet_tf.apps.main import main

SMALL = cases.Case("TinyDarknet", 32, 4, "graph", "SGD", goal=1.02)


def everything(_):
    return True


def silent(_):
    pass


def pairs(rows):
    """What is compared with what, once every row has been found to be a sound one."""
    rows = list(rows)
    for row in rows:
        assert row.value > 0
        assert row.against is None or row.base > 0
    return [(row.what, row.against) for row in rows]


@pytest.mark.slow
def test_train_compares_both_tasks_with_plain_keras_and_the_trainer_with_fit(monkeypatch):
    monkeypatch.setattr(train, "TURN", 0.1)
    rows = train.measure(SMALL, turns=2)
    assert pairs(rows) == [
        ("task 1", "plain"),
        ("task 3", "plain"),
        ("task 3", "task 1"),
        ("plain again", "plain"),
        ("PackTrainer", "fit"),
    ]
    assert {row.case for row in rows} == {"TinyDarknet 32 px x 4, graph, SGD"}


ON_JAX = """
    import dataclasses, json
    from benchmarks import cases, memory, train
    train.TURN = 0.1
    case = cases.Case("TinyDarknet", 32, 4, "graph", "SGD", goal=1.02)
    rows = [dataclasses.asdict(row) for row in train.measure(case, 1)]
    print(json.dumps([rows, memory.measure(case, "packed")]))
"""


@pytest.mark.slow
def test_the_core_is_measured_on_jax_too():
    pytest.importorskip("jax")
    done = run_python(ON_JAX, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr[-2000:]
    rows, taken = json.loads(done.stdout.splitlines()[-1])
    assert pairs(train.Row(**row) for row in rows) == [
        ("task 1", "plain"),
        ("task 3", "plain"),
        ("task 3", "task 1"),
        ("plain again", "plain"),
    ]
    assert taken["peak"] > 0
    assert taken["counter"] == "the system"


def test_train_has_every_network_mode_and_optimizer():
    titles = [case.title for case in cases.all_cases()]
    assert len(set(titles)) == len(titles) == 5 * 3 * 2
    assert "ResNet50 64 px x 32, XLA, Adam" in titles


def test_the_packed_models_are_the_first_and_the_third_task_with_all_that_is_free():
    first, third = cases.packed_model(SMALL, 0), cases.packed_model(SMALL, 2)
    assert (first.pack.tasks, third.pack.tasks) == ((), ("task1", "task2"))
    total = third.pack.capacity().sum()
    assert total["claimed"] == total["total"] - sum(total["owned"].values()) > 0
    assert first.pack.capacity().sum()["claimed"] == total["total"]


@pytest.mark.slow
def test_memory_says_what_packing_takes_per_weight(monkeypatch):
    monkeypatch.setattr(memory, "with_momentum", lambda: [SMALL])
    rows = list(memory.bench(everything, 1, silent))
    assert [(row.what, row.against) for row in rows] == [
        ("peak, packed", "plain"),
        ("peak, more", "one copy + 2 bytes"),
        ("kept, packed", "plain"),
        ("kept, more", "one copy + 2 bytes"),
    ]
    peak, more_peak, kept, more_kept = rows
    assert peak.value > kept.value > 0
    assert more_peak.base == more_kept.base == 6 * 908_720  # the kernels of Tiny Darknet
    assert more_peak.value == peak.value - peak.base
    assert more_kept.value == kept.value - kept.base


def test_the_allocator_counts_what_is_held_and_the_most_that_was():
    import tensorflow as tf

    counter = memory_counters.Allocator.of_device()
    if counter is None:
        pytest.skip("TensorFlow's allocator does not count here")
    before = counter.now()
    tensor = tf.zeros((1 << 22,)) + 1.0
    held = counter.now() - before
    del tensor
    assert held >= 4 << 22
    assert counter.now() < before + held
    assert counter.peak() >= before + (4 << 22)
    counter.restart()
    assert counter.peak() < before + held


@pytest.mark.skipif(memory_counters.memory() is None, reason="no Linux")
def test_the_system_counts_where_the_allocator_does_not():
    counter = memory_counters.Resident()
    block = bytearray(b"1" * 50_000_000)
    held = counter.now()
    counter.restart()
    del block
    assert held >= 49_000_000
    assert counter.peak() >= counter.now()


def test_a_system_that_does_not_tell_is_named(monkeypatch):
    monkeypatch.setattr(memory_counters, "memory", lambda: None)
    with pytest.raises(RuntimeError) as error:
        memory_counters.Resident()
    assert str(error.value) == "the memory of a process can be measured on Linux only"


def test_prune_compares_with_partition_and_checks_the_counts(monkeypatch):
    monkeypatch.setattr(prune, "CASES", (("TinyDarknet", 32),))
    assert pairs(prune.bench(everything, 1, silent)) == [
        ("net.prune", "numpy.partition"),
        ("memory of net.prune", "largest layer"),
    ]


@pytest.mark.slow
def test_storage_compares_seconds_and_bytes_with_keras(monkeypatch):
    monkeypatch.setattr(storage, "CASES", (("TinyDarknet", 32),))
    rows = list(storage.bench(everything, 1, silent))
    assert pairs(rows) == [
        ("net.save", "model.save"),
        ("net.save", "model.save, flushed"),
        ("packnet_tf.load", "load_model"),
        ("pack without heads", "trunk"),
        ("also without norms per task", "trunk"),
    ]
    assert 1.0 < rows[4].ratio < rows[3].ratio < 1.2


@pytest.mark.slow
def test_export_compares_with_tf2onnx(monkeypatch):
    monkeypatch.setattr(export, "CASES", (("TinyDarknet", 32),))
    assert pairs(export.bench(everything, 1, silent)) == [
        ("export_onnx without its check", "tf2onnx"),
        ("export_onnx", "tf2onnx"),
    ]


@pytest.mark.slow
def test_infer_compares_files_and_times_the_commands(monkeypatch):
    monkeypatch.setattr(infer, "CASES", (("TinyDarknet", 32),))
    monkeypatch.setattr("benchmarks.deploy.BUDGET", 0.0)
    assert pairs(infer.bench(everything, 1, silent)) == [
        ("baked", "never packed"),
        ("baked", "never packed"),
        ("bundle", "baked"),
        ("bundle", "baked"),
        (infer.START, None),
        (infer.START, infer.ALONE),
        ("packnet evaluate, ten pictures", infer.ALONE),
    ]


@pytest.mark.slow
def test_scale_compares_many_tasks_with_one_and_counts_no_more_traces_than_plain_keras(monkeypatch):
    monkeypatch.setattr(scale, "TASKS", (1, 3))
    monkeypatch.setattr(scale, "PIXELS", 32)
    monkeypatch.setattr(scale, "CASE", SMALL)
    rows = list(scale.bench(everything, 1, silent))
    assert pairs(rows) == [
        *[("3 tasks", "1 task")] * 3,
        ("1 task", "what it must hold"),
        ("3 tasks", "what it must hold"),
        *[("3 tasks", "1 task")] * 3,
        ("task 4", "plain Keras"),
    ]
    traces = rows[-1]
    assert (traces.value, traces.verdict) == (traces.base, "reached")


@pytest.mark.slow
def test_input_compares_both_kinds_of_epochs_with_the_step(monkeypatch):
    monkeypatch.setattr(inputs, "CASES", (("TinyDarknet", 32, 4, 40),))
    rows = list(inputs.bench(everything, 1, silent))
    assert pairs(rows) == [
        ("first epoch", "training step"),
        ("later epochs", "training step"),
        ("step within fit, no tuner", "with tf.data's tuner"),
    ]
    assert [row.goal for row in rows] == [1 / 1.5, 1 / 5, None]
    assert rows[-1].note.startswith("means ")


@pytest.mark.slow
def test_a_bench_is_a_table_on_the_screen_and_rows_in_a_file(tmp_path, capsys):
    sys.modules.pop(
        "packnet_tf.apps.commands.bench", None
    )  # its flags keep the values of the last run
    path = tmp_path / "import.json"
    flags = ["--only=import packnet_tf", "--repeats=1", f"--json={path}"]
    assert main(["bench", "import", *flags]) == 0
    found = json.loads(path.read_text())
    assert (found["bench"], found["repeats"]) == ("import", 1)
    assert found["machine"]["versions"]["keras"]
    ratio, more = found["rows"]
    assert (ratio["what"], ratio["against"]) == ("both", imports.KERAS)
    assert more["verdict"] == "reached", "packnet_tf imports nothing but itself"
    out = capsys.readouterr().out
    assert out.startswith("1 turns of 1 processes\nimport packnet_tf ")
    assert re.search("\ncase +what +against +ratio", out)


def test_a_bench_none_of_whose_cases_is_wanted_is_refused(capsys):
    sys.modules.pop("packnet_tf.apps.commands.bench", None)
    assert main(["bench", "storage", "--only=VGG17"]) == 2
    assert capsys.readouterr().err == (
        "packnet bench: no case of bench storage has --only=VGG17. See packnet bench --help.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["train", "--networks=VGG16"],
            "bench train has no --networks; it takes --only, --repeats",
        ),
        (["networks", "--repeats=2"], "bench networks has no --repeats; it takes --networks"),
        (
            ["deploy", "--only=VGG16"],
            "bench deploy has no --only; it takes --repeats, --networks, ",
        ),
    ],
)
def test_a_flag_of_another_bench_is_refused_and_not_ignored(arguments, text, capsys):
    sys.modules.pop("packnet_tf.apps.commands.bench", None)
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"packnet bench: {text}")


def test_reference_says_that_it_needs_pytorch(monkeypatch, capsys):
    sys.modules.pop("packnet_tf.apps.commands.bench", None)
    monkeypatch.setattr(reference, "has_torch", lambda: False)
    assert main(["bench", "reference"]) == 1
    assert capsys.readouterr().err == (
        "packnet bench: this bench needs PyTorch: pip install torch\n"
    )


@pytest.mark.skipif(not reference.has_torch(), reason="PyTorch is not here")
def test_reference_has_the_same_network_and_compares_step_and_prune():
    import torch

    network = reference.torch_network("TinyDarknet", 32)
    kernels = [parameter for parameter in network.parameters() if parameter.dim() == 4]
    assert sum(kernel.numel() for kernel in kernels) == 908_720
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert pairs(reference.measure(SMALL, 1)) == [
        ("packnet_tf", reference.TORCH),
        ("net.prune", reference.TORCH),
    ]
