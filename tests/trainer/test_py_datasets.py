"""A task may take its data from `keras.utils.PyDataset`s, whose workers end with it."""

import itertools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.pack_helpers import conv_trunk, data, same, values, weights_of
from helpers.short_runs import quick
from packnet_tf import Task
from packnet_tf.trainer.data import TrainingData


class Batches(keras.utils.PyDataset):
    """Batches of 8 examples; it notes its epochs, and turns its order around after each."""

    def __init__(self, *arrays, fails=None, **workers):
        super().__init__(**workers)
        self.arrays, self.fails, self.events = arrays, fails, []

    def __len__(self):
        return len(self.arrays[0]) // 8

    def __getitem__(self, place):
        if len(self.events) == self.fails:
            raise RuntimeError("a file is gone")
        return tuple(array[8 * place : 8 * place + 8] for array in self.arrays)

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")
        self.arrays = tuple(array[::-1] for array in self.arrays)


class Endless(Batches):
    __len__ = None
    num_batches = None


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("Worker_")]


def epochs(source, *numbers, seed=0):
    """The labels of the batches of some epochs, in order."""
    passes, found = TrainingData(source, 8, seed, tf.distribute.get_strategy()), []
    for number in numbers:
        iterator, steps = passes.start(number)
        found.append([batch[1].numpy().tolist() for batch in iterator])
        assert len(found[-1]) == steps == len(source)
        passes.end()
    return found


def counted(**options):
    return Batches(np.zeros((40, 2), np.float32), np.arange(40), **options)


@pytest.mark.parametrize("count", [1, 3])
def test_every_epoch_has_all_batches_in_an_order_that_a_later_run_repeats(count):
    whole = epochs(counted(workers=count), 0, 1, 2)
    for labels in whole:
        assert sorted(itertools.chain(*labels)) == [*range(40)]
    assert len({str(labels) for labels in whole}) == 3
    assert epochs(counted(workers=count), 2) == whole[2:]
    assert epochs(counted(), 0, seed=1) != whole[:1]
    assert workers() == []


@pytest.mark.parametrize(
    "options",
    [{"workers": 2}, *slow({"workers": 1}, {"workers": 2, "use_multiprocessing": True})],
    ids=str,
)
def test_tasks_are_packed_from_them(options):
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    x, y = data(trunk)
    train, held_out = Batches(x, y, np.ones(24, np.float32), **options), Batches(x, y, **options)
    task = Task("a", layers.Dense(3), train, held_out, held_out, class_weight="balanced")
    history = quick(net).fit(task)
    assert net.tasks == ("a",)
    assert [row["steps"] for row in history["a"]["epochs"]] == [3, 3, 3]
    assert set(history["a"]["test"]) == {"loss", "accuracy"}
    assert train.events[:6] == ["begin", "end"] * 3
    assert workers() == []


def test_workers_end_where_training_fails():
    net = packnet_tf.PackNet(conv_trunk())
    train = Batches(*data(conv_trunk()), fails=3, workers=2)  # within the second epoch
    with pytest.raises(Exception, match="a file is gone"):
        quick(net).fit(Task("a", layers.Dense(3), train))
    assert workers() == []


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path):
    trunk = conv_trunk()
    x, y = data(trunk, size=40)

    def go(directory, on_epoch=None):
        keras.utils.set_random_seed(3)
        net = packnet_tf.PackNet(trunk)
        quick(net, directory=directory, on_epoch=on_epoch).fit(
            Task("a", layers.Dense(3), Batches(x, y), Batches(x, y))
        )
        return values([weight.packed for weight in weights_of(net).values()])

    def interrupt(task, numbers):
        raise OSError(f"after epoch {numbers['epoch']}")

    with pytest.raises(OSError, match="after epoch 0"):
        go(tmp_path / "parts", interrupt)
    assert same(go(tmp_path / "parts"), go(tmp_path / "whole"))


@pytest.mark.parametrize("place", ["train", *slow("validation")])
def test_data_that_never_end_are_refused(place):
    trunk = conv_trunk()
    net = packnet_tf.PackNet(trunk)
    given = {"train": data(trunk), place: Endless(*data(trunk))}
    with pytest.raises(ValueError, match="never end"):
        quick(net).fit(Task("a", layers.Dense(3), **given))
    if place == "train":  # the task has not begun
        assert net.open_model is None
