"""`packnet bench deploy`: every way to deploy a pack's tasks, side by side."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from benchmarks import deploy, session, trunks
from benchmarks.machine import PACKAGES
from helpers import onnx_files
from packnet_tf.apps.device.memory import PeakMemory, memory, restart_peak
from packnet_tf.apps.main import main

linux_only = pytest.mark.skipif(memory() is None, reason="the system does not tell")


def small_trunk():
    """1,456 packed weights, 32 pixels."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(64, 1, use_bias=False, name="conv2")(x)
    x = layers.LeakyReLU(name="leaky")(x)
    return keras.Model(inputs, x, name="small")


def run(*arguments):
    sys.modules.pop(
        "packnet_tf.apps.commands.bench", None
    )  # its flags keep the values of the last run
    return main(["bench", "deploy", *arguments])


@pytest.mark.slow
def test_the_bench_measures_every_way_and_writes_tables(tmp_path, capsys, monkeypatch):
    small_trunk().save(tmp_path / "small.keras")
    monkeypatch.setattr(deploy, "BUDGET", 0.0)  # seconds: one turn each
    status = run(
        "--networks=TinyDarknet",
        f"--trunk={tmp_path / 'small.keras'}",
        "--image_size=32",
        "--tasks=3",
        "--repeats=2",
        "--threads=1",
        f"--json={tmp_path / 'found.json'}",
    )
    out = capsys.readouterr().out
    assert status == 0, out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["threads"] == 1
    assert set(found["machine"]) == {"cpu", "cores", "system", "versions"}
    assert set(found["machine"]["versions"]) == {"python", *PACKAGES}
    (result,) = found["networks"]
    assert (result["network"], result["image_size"]) == ("TinyDarknet", 32)
    assert (result["tasks"], result["rounds"]) == (3, 2)
    assert (result["parameters"], result["packed_parameters"]) == (432 + 64 + 1024, 432 + 1024)

    sizes = result["bytes"]
    assert sizes["bundle"] == sizes["graphs"] + sizes["shared"]
    assert sizes["shared"] >= 1456 * (4 + 2 / 8)  # float32, and an owner in 2 bits
    assert 3 * 1456 * 4 < sizes["baked"] < 3 * sizes["baked_one"] * 1.01
    assert sizes["never_packed"] > 1456 * 4
    assert {"float16", "int8", "pack"} < set(sizes)

    assert list(result["cases"]) == list(deploy.CASES)
    for case, facts in result["cases"].items():
        assert set(facts) == {"load_seconds", "resident", "load_peak", "latency"}
        assert facts["load_seconds"] > 0
        for times in facts["latency"].values():
            assert 0 < times["best_ms"] <= times["median_ms"] <= times["p90_ms"]
            assert (times["ratio"] is None) == (case == "never packed")
        assert set(facts["latency"]) == {"1", "32"}

    assert "s: packing 3 tasks into 1,520 parameters\n" in out
    assert "s: round 2 of 2: never packed " in out
    assert f"\n\n{deploy.deploy_table(found)}\n" in out


@pytest.mark.slow
def test_a_network_that_fails_is_a_line_and_status_1(tmp_path, capsys):
    path = tmp_path / "words.keras"
    keras.Sequential([keras.Input((7,)), layers.Dense(2)]).save(path)
    assert run("--networks=TinyDarknet", f"--trunk={path}") == 1
    out, err = capsys.readouterr()
    said = (
        f"ValueError: The trunk '{path}' takes inputs of shape (None, 7); expected images, "
        "(batch, height, width, 3) or (batch, height, width, 1)."
    )
    assert f"s: FAILED: {said}\n" in out
    assert f"\nTinyDarknet: {said}\n" in out
    assert err == "packnet bench: nothing could be measured for TinyDarknet\n"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            ["--networks=VGG17"],
            "keras.applications has no network 'VGG17'; it has besides TinyDarknet ConvNeXtBase, ",
        ),
        (
            ["--networks=VGG16", "--trunk=a.keras"],
            "--trunk is the file of TinyDarknet, which is not among --networks; add it there. See ",
        ),
        (["--trunk=gone.keras"], "there is no file --trunk=gone.keras; name a .keras model. See "),
        (
            ["--trunk_output=relu"],
            "--trunk_output is a layer of the file --trunk, which is missing. See ",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_words(flags, text, capsys):
    assert run(*flags) == 2
    assert capsys.readouterr().err.startswith(f"packnet bench: {text}")


def test_tiny_darknet_has_the_published_layout():
    trunk = trunks.build_trunk("TinyDarknet", 96)
    filters = [x.filters for x in trunk.layers if isinstance(x, layers.Conv2D)]
    assert filters == [16, 32, 16, 128, 16, 128, 32, 256, 32, 256, 64, 512, 64, 512, 128]
    sizes = [x.kernel_size[0] for x in trunk.layers if isinstance(x, layers.Conv2D)]
    assert sizes == [3, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]
    assert trunk.get_layer("mean").input.shape == (None, 6, 6, 128)
    assert trunk.output_shape == (None, 128)


def test_vgg_keeps_its_two_dense_layers_and_the_others_end_in_a_mean():
    vgg = trunks.build_trunk("VGG16", 32)
    assert [x.name for x in vgg.layers[-2:]] == ["fc1", "fc2"]
    assert vgg.output_shape == (None, 4096)
    assert trunks.build_trunk("MobileNetV2", 32).output_shape == (None, 1280)


def test_packed_tasks_have_equal_shares_and_differ():
    trunk = keras.Sequential([keras.Input((8,)), layers.Dense(15)])
    net = trunks.packed(trunk, 3)
    assert net.capacity().sum()["owned"] == {f"task{number}": 40 for number in (1, 2, 3)}
    x = np.ones((1, 8), np.float32)
    first, second, third = (np.asarray(net.task_model(name)(x)) for name in net.tasks)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_a_session_process_loads_a_file_and_times_its_runs(tmp_path):
    path = onnx_files.write_other_model(tmp_path / "m.onnx", (4, 4, 3), (1, 2))
    with session.SessionProcess(path, threads=1) as process:
        assert set(process.loaded) == {"load_seconds", "resident", "load_peak"}
        assert process.loaded["load_seconds"] > 0
        (once,) = process.run(2, 0)
        times = process.run(2, 0.05)
    assert once > 0
    assert sum(times[:-1]) < 50 <= sum(times)


def test_the_process_of_a_session_imports_neither_keras_nor_tensorflow(tmp_path):
    path = onnx_files.write_other_model(tmp_path / "m.onnx", (4, 4, 3), (1, 2))
    code = (
        "import sys\n"
        "from benchmarks import session\n"
        f"session.serve({path!r}, 1, ['1 0'], lambda found: None)\n"
        "print([name for name in ('keras', 'tensorflow', 'onnx') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_file_that_cannot_be_loaded_is_an_error_with_onnxruntimes_words(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(RuntimeError) as error:
        session.SessionProcess(path)
    assert f"Load model from {path} failed" in str(error.value)


@linux_only
def test_loading_a_large_file_takes_its_size_in_memory(tmp_path):
    path = onnx_files.write_other_model(tmp_path / "m.onnx", (4, 4, 3), (1, 10_000_000))
    with session.SessionProcess(path, threads=1) as process:
        assert 40e6 < process.loaded["resident"] <= process.loaded["load_peak"]


@linux_only
def test_memory_counts_what_is_taken_and_the_peak_of_what_was():
    before = memory()
    block = np.ones(50_000_000, np.uint8)
    held = memory()
    assert held.own - before.own >= 50_000_000 - 1_000_000
    assert held.own <= held.resident <= held.peak
    del block
    assert memory().own < held.own - 40_000_000
    assert memory().peak >= held.resident - 1_000_000
    restart_peak()
    with PeakMemory() as watched:
        block = np.ones(50_000_000, np.uint8)
        session.timed(lambda: block.sum(), 0.1)
    assert watched.grown >= 50_000_000 - 1_000_000


def test_times_are_summed_up_over_turns_and_compared_within_them():
    turns = [
        {"baked": [1.0, 1.0, 4.0], "bundle": [1.1, 1.1]},
        {"baked": [10.0], "bundle": [12.0]},  # the machine was busy
        {"baked": [2.0, 2.0], "bundle": [2.2, 2.2, 9.0]},
    ]
    found = deploy.latency(turns, "bundle")
    assert found.pop("ratio") == pytest.approx(1.1)
    assert found == {"median_ms": 2.2, "p90_ms": 12.0, "best_ms": 1.1}
    assert deploy.latency(turns, "baked") == {
        "median_ms": 2.0,
        "p90_ms": 10.0,
        "best_ms": 1.0,
        "ratio": None,  # the network never packed was not run
    }


def test_the_tables_show_sizes_cases_and_what_failed():
    times = {"median_ms": 2.0, "p90_ms": 3.0, "best_ms": 1.0, "ratio": None}
    facts = {"load_seconds": 0.05, "resident": 4_000_000, "load_peak": None}
    facts |= {"latency": {"1": times, "32": {**times, "median_ms": 50.0, "ratio": 1.25}}}
    sizes = {"baked_one": 1000, "baked": 4000, "bundle": 1100, "graphs": 40, "shared": 1060}
    found = {
        "machine": {"cpu": "Abacus", "cores": 2, "versions": {"onnxruntime": "1.31.1"}},
        "networks": [
            {
                "network": "VGG16",
                "image_size": 224,
                "bytes": {**sizes, "float16": 510, "int8": 270, "pack": 1070},
                "cases": {"never packed": {"error": "Keras's exporter: no"}, "baked": facts},
            },
            {"network": "VGG19", "error": "MemoryError"},
        ],
    }
    assert deploy.deploy_table(found).split("\n") == [
        "                               VGG16 224 px",
        "-------------------------------------------",
        "one baked file                      1.00 kB",
        "all baked files                     4.00 kB",
        "  / one baked                         4.000",
        "bundle                              1.10 kB",
        "  / one baked                         1.100",
        "  its graphs, heads and norms      40 bytes",
        "  shared.data                       1.06 kB",
        "    / one baked                       1.060",
        "one float16 file                  510 bytes",
        "  / one baked                         0.510",
        "one int8 file                     270 bytes",
        "  / one baked                         0.270",
        "one never packed                       none",
        "pack.keras                          1.07 kB",
        "  / one baked                         1.070",
        "",
        "network               case    load  resident  load peak  batch 1      p90  ratio  "
        "batch 32      p90  ratio",
        "-" * 106,
        "VGG16 224 px  never packed  FAILED",
        "VGG16 224 px         baked   50 ms   4.00 MB          ?  2.00 ms  3.00 ms         "
        "50.00 ms  3.00 ms   1.25",
        "VGG19: MemoryError",
        "VGG16, never packed: Keras's exporter: no",
        "Abacus, 2 cores, onnxruntime 1.31.1",
    ]
