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

import packnet_tf
from helpers import trainer_runs
from helpers.pack_helpers import same

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
