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
import trainer_runs
from pack_helpers import same

SCRIPT = pathlib.Path(trainer_runs.__file__)
KILLS = 6


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole).wait() == 0
    random.seed(0)
    seen = []
    for _ in range(KILLS):
        process = start(parts)
        epochs = random.randint(1, 4)
        for line in process.stdout:
            seen.append(line)
            epochs -= bool(re.search(r", epoch \d", line))
            if epochs == 0:
                time.sleep(random.random() * 0.3)
                break
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        if process.wait() == 0:
            break  # it was done before the signal came
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
