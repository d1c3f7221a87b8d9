"""Many tasks, and many trainings in one process."""

import os
import time

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers import long_runs
from helpers.pack_helpers import data, logits, mlp_trunk, run_python
from packnet_tf.packing.weight import MAX_TASKS

pytestmark = pytest.mark.slow


def test_trainings_that_are_discarded_take_no_more_memory_than_those_of_plain_keras():
    grown = {}
    for kind in ("plain", "pack"):
        code = f"from helpers.long_runs import main; main({kind!r})"
        grown[kind] = float(run_python(code).stdout.split()[-1])
    print(f"{long_runs.CYCLES - long_runs.WARM} trainings, MB: {grown}")
    # A model and its optimizer have 6 MB.
    assert grown["pack"] <= grown["plain"] + 10


def test_hundreds_of_tasks_with_overlays_are_added_saved_and_read(tmp_path):
    count, seconds, began = 300, [], time.process_time()
    rng = np.random.default_rng(0)
    net = packnet_tf.PackNet(mlp_trunk())
    for number in range(count):
        overlay = {} if number == 0 else {"overlay": 0.05}
        model = net.add_task(f"task{number}", layers.Dense(3), **overlay)
        for variable in model.trainable_variables:
            variable.assign_add(rng.normal(size=variable.shape).astype("float32"))
        net.prune(0.0)
        net.commit()
        seconds.append(time.process_time() - began)
    first, last = seconds[99], seconds[-1] - seconds[-101]
    path = tmp_path / "pack.keras"
    net.save(path)
    began = time.process_time()
    loaded = packnet_tf.load(path)
    print(f"tasks 1-100: {first:.1f} s, 201-300: {last:.1f} s, {os.path.getsize(path):,} bytes, "
          f"read in {time.process_time() - began:.2f} s")  # fmt: skip
    assert last < 2 * first
    x, _ = data(mlp_trunk())
    for name in (net.tasks[0], net.tasks[count // 2], net.tasks[-1]):
        assert np.array_equal(logits(loaded.task_model(name), x), logits(net.task_model(name), x))
    assert len(str(loaded.capacity())) > 0
    with pytest.raises(ValueError, match=r"Committed tasks: .* and 292 more") as error:
        loaded.task_model("none")
    assert len(str(error.value)) <= 1000


def test_as_many_tasks_own_weights_as_there_are_numbers_and_the_next_one_may_have_an_overlay():
    inputs = keras.Input((12,), name="features")
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(64, name="only")(inputs)))
    for number in range(MAX_TASKS):
        net.add_task(f"task{number}", layers.Dense(1), claim_ratio=1 / (MAX_TASKS + 1 - number))
        net.commit()
    assert net.capacity().free > 0
    with pytest.raises(ValueError, match=r"overlay=0\.05"):
        net.add_task("more", layers.Dense(1))
    net.add_task("more", layers.Dense(1), overlay=0.05)
    net.prune(0.0)
    net.commit()
    assert len(net.tasks) == MAX_TASKS + 1
