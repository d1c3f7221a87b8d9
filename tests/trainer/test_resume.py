"""A run that is killed and started again ends as one that was not."""

import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers import trainer_runs
from helpers.pack_helpers import data, mlp_trunk, run_python, same
from helpers.short_runs import quick

SCRIPT = pathlib.Path(trainer_runs.__file__)
# A run dies soon after it prints this: once in every way to prune, before the prune or after it.
KILLS = (r"one, retraining, epoch", r"two, training, epoch 2", r"three, retraining, epoch")


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, measured = trainer_runs.three_ways(whole)
    kept = [each["kept"] for each in measured["three"]["rounds"]]
    assert True in kept  # a resumed search must know its last good state
    assert False in kept
    random.seed(0)
    seen = []
    for place in KILLS:
        process = start(parts)
        for line in process.stdout:
            seen.append(line)
            if re.match(place, line):
                time.sleep(random.random() * 0.3)
                break
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL, seen
    rest = start(parts)
    seen += list(rest.stdout)
    assert rest.wait() == 0
    assert sum("continuing after" in line for line in seen) >= 2, seen

    one, two = (packnet_tf.load(run / "pack.keras") for run in (whole, parts))
    assert one.tasks == two.tasks == ("one", "two", "three")
    for path, owner in one.owners().items():
        assert np.array_equal(owner, two.owners()[path])
    assert same(trainer_runs.numbers(one), trainer_runs.numbers(two))
    assert history(whole) == history(parts)
    assert not (parts / "checkpoint.npz").exists()


@pytest.mark.parametrize("name", ["one", "Vögel"])  # TensorFlow takes the second for no scope
def test_a_task_goes_on_in_the_process_in_which_it_was_interrupted(name, tmp_path):
    import tensorflow as tf

    trunk, epochs = mlp_trunk(), []
    examples = data(trunk)

    def train(epoch):
        epochs.append(epoch)
        if epochs.count(1) == 1 and epoch == 1:
            raise KeyboardInterrupt
        return tf.data.Dataset.from_tensor_slices(examples).batch(8)

    net = packnet_tf.PackNet(trunk)
    task = packnet_tf.Task(name, layers.Dense(3), train)
    with pytest.raises(SystemExit):
        quick(net, directory=tmp_path).fit(task)
    history = quick(net, directory=tmp_path).fit(task)
    assert net.tasks == (name,)
    assert [row["epoch"] for row in history[name]["epochs"]] == [0, 1, 2]


@pytest.mark.parametrize(("epoch", "retried"), [(1, False), (4, True)])  # each way has 3 epochs
def test_a_run_whose_preparation_packs_a_base_ends_as_one_that_was_not_interrupted(
    epoch, retried, tmp_path
):
    """A preparation that is repeated has the seed that it had before it packed the base."""
    trunk = trainer_runs.trunk()
    x, y = data(trunk, size=48)

    def run(directory, stops=0):
        epochs, shares = [], []

        def prepare(net, memory):
            batches = trainer_runs.augmented(x, y)  # their order is drawn when they are made
            if not net.tasks:
                net.adopt("base", 0.5, images=x, epochs=1, verbose=0)
            shares.append(memory.setdefault("share", 1.0))
            return packnet_tf.Task("a", layers.Dense(3), batches, claim_ratio=shares[-1])

        def retry(net, entry):
            return {"share": 0.5} if retried and shares[-1] == 1.0 else None

        def power_cut(task, row):
            epochs.append(row)
            if len(epochs) == stops:
                raise OSError("the power is gone")

        net = packnet_tf.PackNet(trunk)
        pending = packnet_tf.PendingTask("a", prepare, retry=retry)
        quick(net, directory=directory, on_epoch=power_cut).fit(pending)
        return trainer_runs.numbers(net)

    with pytest.raises(OSError, match="the power is gone"):
        run(tmp_path / "stopped", epoch)
    assert same(run(tmp_path / "stopped"), run(tmp_path / "whole"))


def test_ctrl_c_ends_with_the_command_to_continue(tmp_path):
    run = run_python(
        """
        import os, signal, sys
        import packnet_tf
        import tensorflow as tf
        from keras import layers
        from helpers.pack_helpers import data, mlp_trunk
        trunk = mlp_trunk()
        pairs = tf.data.Dataset.from_tensor_slices(data(trunk, size=32)).batch(32)
        def batches(epoch):
            if epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return pairs
        def interrupted(jit_compile):
            net = packnet_tf.PackNet(trunk)
            directory = sys.argv[1] + "/" + str(jit_compile)
            trainer = packnet_tf.PackTrainer(net, epochs=3, directory=directory,
                                             jit_compile=jit_compile)
            trainer.fit([packnet_tf.Task("a", layers.Dense(3), batches)])
        try:
            interrupted(True)
        except SystemExit as end:
            print("status", end.code)
        interrupted(False)
        """,
        tmp_path,
    )
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr
    compiled_run, plain_run = run.stdout.split("\nstatus 130\n")
    for jit_compile, output in ((True, compiled_run), (False, plain_run)):
        directory = tmp_path / str(jit_compile)
        said, *command = output[output.index("Interrupted") :].splitlines()
        assert said == (
            f"Interrupted; epochs that were finished are in '{directory}'. To continue:"
        )
        assert command[-1].endswith(f" {tmp_path}")
        assert (directory / "checkpoint.npz").exists()


def start(directory):
    return subprocess.Popen(
        [sys.executable, SCRIPT, "three_ways", directory],
        env=trainer_runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def history(directory):
    """All of `history.json` that is not time."""
    entries = json.loads((directory / "history.json").read_text())
    for entry in entries.values():
        del entry["seconds"]
        for row in entry["epochs"]:
            del row["seconds"], row["examples_per_second"]
    return entries
