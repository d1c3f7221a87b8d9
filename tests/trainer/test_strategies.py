"""Several devices and several hosts: the same pack, replica by replica."""

import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

import packnet_tf
from helpers import trainer_runs
from helpers.pack_helpers import run_python

ROUNDING = 1e-5  # float32 sums in another order, over 16 steps


@pytest.fixture(scope="module")
def two_devices():
    """What a process with two devices prints, by the first word of each line."""
    run = run_python("from helpers import trainer_runs; trainer_runs.same_on_every_device()")
    assert run.returncode == 0, run.stderr
    return dict(line.split(maxsplit=1) for line in run.stdout.splitlines())


@pytest.mark.slow
def test_two_devices_pack_as_one_does(two_devices):
    assert float(two_devices["trainer"]) < ROUNDING
    assert float(two_devices["fit"]) < ROUNDING


@pytest.mark.slow
def test_a_last_batch_may_have_fewer_examples_than_there_are_devices(two_devices):
    assert two_devices["empty"] == "True True"


@pytest.mark.slow
def test_examples_of_all_devices_count_alike_in_statistics(two_devices):
    assert two_devices["weights"] == "1.00-1.00 1.00-1.00 1.00-1.00"


@pytest.mark.slow
def test_a_model_on_several_devices_answers_as_it_was_committed(two_devices):
    assert two_devices["committed"] == "True"


@pytest.mark.slow
def test_xla_on_several_devices_is_refused(two_devices):
    assert two_devices["refusal"] == (
        "jit_compile=True trains on one device, and this pack is spread over 2: TensorFlow cannot "
        "compile the exchange of gradients with XLA. Write jit_compile=False."
    )


@pytest.mark.slow
def test_two_hosts_pack_as_one_does(tmp_path):
    ports = ",".join(map(str, free_ports(2)))
    script = pathlib.Path(trainer_runs.__file__)
    workers = [
        subprocess.Popen(
            [sys.executable, script, "worker", tmp_path, str(index), ports],
            env=trainer_runs.environment(),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        ended = [process.communicate(timeout=300) for process in workers]
    finally:
        for process in workers:
            process.kill()
    for process, (_, errors) in zip(workers, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    assert packnet_tf.load(tmp_path / "run" / "pack.keras").tasks == ("one", "two")
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"run", "trainer.keras", "fit.keras"}  # written by the first worker alone
    first, second = (output for output, _ in ended)
    assert first == second
    assert [line.split()[0] for line in first.splitlines()] == ["trainer", "fit"]
    for way in ("trainer", "fit"):
        one = trainer_runs.equal_parts(fit=way == "fit")
        two = packnet_tf.load(tmp_path / f"{way}.keras")
        assert two.tasks == ("one", "two")
        for path, owner in two.owners().items():
            assert np.array_equal(owner, one.owners()[path])
        for a, b in zip(trainer_runs.numbers(one), trainer_runs.numbers(two), strict=True):
            assert np.allclose(a, b, rtol=0, atol=ROUNDING)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
