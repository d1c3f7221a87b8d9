"""What the trainer makes of the data that it is given."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import packnet_tf
from helpers.short_runs import quick
from packnet_tf import Task
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.trainer.data import TrainingData, untuned


def tuning(data) -> bool | None:
    return data.options().autotune.enabled


def test_an_epoch_does_not_wait_for_the_tuner_of_tf_data():
    arrays = np.arange(6, dtype=np.float32), np.arange(6)
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(2)
    for source in (arrays, dataset, lambda epoch: dataset):
        passes = TrainingData(source, batch_size=2, seed=1, strategy=tf.distribute.get_strategy())
        batches, steps = passes.start(0)
        assert steps == 3
        assert sorted(label for _, labels in batches for label in labels.numpy()) == [*range(6)]
        assert tuning(passes._data) is False
    pipeline = Pipeline((4, 4, 3), batch_size=2, seed=0)
    files = [("none.png", 0)]
    assert tuning(pipeline.training(files, flip=True, crop=False)) is False
    assert tuning(pipeline.evaluation(files)) is False


@pytest.mark.parametrize("wanted", [True, False])
def test_options_that_say_whether_to_tune_stay(wanted):
    options = tf.data.Options()
    options.autotune.enabled = wanted
    options.autotune.cpu_budget = 1
    data = tf.data.Dataset.range(3).with_options(options)
    assert untuned(data) is data
    other = tf.data.Options()
    other.deterministic = False
    kept = untuned(tf.data.Dataset.range(3).with_options(other)).options()
    assert (kept.deterministic, kept.autotune.enabled) == (False, False)


@pytest.mark.parametrize("kind", ["dataset", "function"])
def test_data_that_never_end_are_refused(kind):
    endless = tf.data.Dataset.range(3).batch(2).repeat()
    source = endless if kind == "dataset" else lambda epoch: endless
    with pytest.raises(ValueError) as error:
        TrainingData(source, 2, 0, tf.distribute.get_strategy()).start(0)
    assert str(error.value) == (
        "The data of a task never end: the dataset repeats without limit, and all of its batches "
        "are needed. Leave out .repeat(), or write .repeat().take(batches)."
    )
    limited = endless.take(2)
    assert TrainingData(limited, 2, 0, tf.distribute.get_strategy()).start(0)[1] == 2


def test_several_inputs_may_be_a_list_of_arrays_as_for_fit():
    inputs = [keras.Input((4,), name="left"), keras.Input((6,), name="right")]
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(8)(layers.concatenate(inputs))))
    random = np.random.default_rng(0)
    images = [random.normal(size=(32, width)).astype("float32") for width in (4, 6)]
    split = (images, random.integers(0, 3, 32))
    entry = quick(net).fit(Task("a", layers.Dense(3), split, split, split))["a"]
    expected = net.task_model("a").predict(images, verbose=0).argmax(-1) == split[1]
    assert entry["test"]["accuracy"] == pytest.approx(expected.mean())
