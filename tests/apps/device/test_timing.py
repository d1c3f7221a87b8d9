"""Inputs, times and memory of exported files."""

import os

import numpy as np
import pytest
from onnx import TensorProto, helper

from helpers.onnx_files import save, write_model, write_other_model
from packnet_tf.apps.device import timing
from packnet_tf.apps.device.fresh_process import in_fresh_process
from packnet_tf.apps.device.timing import Latency, measure, random_feed
from packnet_tf.export.runtime.session import session


def write_embedding(path, rows=2):
    """Writes a file that looks up tokens, int32 (batch, length), and adds as many numbers, 64."""
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("Add", ["rows", "weight"], ["features"]),
    ]
    table = helper.make_tensor("table", TensorProto.FLOAT, [rows], [0.0, 1.0][:rows])
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", "length"]),
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["batch", 64]),
    ]
    outputs = [("features", TensorProto.FLOAT, "batch", 64)]
    return save(path, nodes, inputs, outputs, [table])


def test_random_inputs_have_the_names_dtypes_and_sizes_of_the_file(tmp_path):
    picture = session(write_model(tmp_path / "m.onnx")).get_inputs()
    [(name, pixels)] = random_feed(picture, 3, 20, 9).items()
    assert (name, pixels.dtype, pixels.shape) == ("image", np.uint8, (3, 20, 20, 3))
    assert pixels.max() > 200
    several = session(write_embedding(tmp_path / "t.onnx")).get_inputs()
    feed = random_feed(several, 3, 20, 9)
    assert {n: (a.dtype, a.shape) for n, a in feed.items()} == {
        "tokens": (np.int32, (3, 9)),
        "weight": (np.float32, (3, 64)),
    }
    assert set(feed["tokens"].flat) == {0, 1}  # indices of any embedding


def test_a_file_with_several_inputs_and_open_sizes_runs_at_the_first_size_it_takes(tmp_path):
    found = measure(write_embedding(tmp_path / "t.onnx"), [2, 5], seconds=0)
    assert [one.batch for one in found.latencies] == [2, 5]
    with pytest.raises(ValueError, match=r"t\.onnx' does not run on random inputs, 2 in a batch: "):
        measure(write_embedding(tmp_path / "t.onnx", rows=1), [2], seconds=0)


def test_a_fixed_batch_size_is_the_only_one(tmp_path):
    model = write_model(tmp_path / "m.onnx", batch=4)
    assert [one.batch for one in measure(model, [1, 8], seconds=0).latencies] == [4]


def test_times_are_the_median_and_the_90th_percentile_of_the_runs(monkeypatch):
    lengths = [100, 5, 1, 2, 3, 4, 10]  # ms; the first is the warm-up
    clock = np.repeat(np.cumsum(lengths) / 1000, 2)[:-1]
    ticks = iter([0.0, *clock])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    found = timing._latency(lambda: None, 8, seconds=0.0245)
    assert (found.batch, found.runs) == (8, 6)
    assert (found.median, found.p90) == pytest.approx((3.5, 7.5))
    assert found.per_second == pytest.approx(8 * 6 / 0.025)


def test_a_slow_file_runs_three_times_and_a_fast_one_until_the_time_is_over(tmp_path):
    model = write_model(tmp_path / "m.onnx")
    [slow] = measure(model, [1], seconds=0).latencies
    [fast] = measure(model, [1], seconds=0.05).latencies
    assert slow.runs == 3
    assert fast.runs > 3
    assert isinstance(fast, Latency)
    assert 0 < fast.median <= fast.p90


@pytest.mark.skipif(not timing.STATUS.exists(), reason="this system does not tell")
def test_memory_is_that_of_the_file_alone(tmp_path):
    size = (1000, 1000)  # 4 MB of weights
    big = write_other_model(tmp_path / "big.onnx", (4, 4, 3), size)
    small = write_other_model(tmp_path / "small.onnx", (4, 4, 3), (1, 1))
    memory = [in_fresh_process(measure, path, [1], 0.0).memory for path in (small, big, small)]
    assert memory[1] > memory[0] + 4_000_000
    assert memory[2] < memory[0] + 2_000_000  # nothing of the other is counted


def test_systems_that_do_not_tell_the_memory_give_none(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "STATUS", tmp_path / "gone")
    assert measure(write_model(tmp_path / "m.onnx"), [1], seconds=0).memory is None


def test_a_fresh_process_passes_results_and_errors_on():
    assert in_fresh_process(divmod, 7, 2) == (3, 1)
    assert in_fresh_process(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        in_fresh_process(divmod, 7, 0)
    with pytest.raises(ChildProcessError, match="with status 3"):
        in_fresh_process(os._exit, 3)
