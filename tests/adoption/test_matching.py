"""Feature matching: a pruned trunk learns to compute what the unpruned one does, on any images."""

import keras
import numpy as np
import pytest
from keras import layers

import packnet_tf
from helpers.cases import slow
from helpers.networks import NETWORKS, head_for, samples
from helpers.pack_helpers import logits, same, values
from helpers.pretrained import Batches, images, pretrained
from packnet_tf.adoption.matching import Matching, cosine, match
from packnet_tf.packing import cloning

pytestmark = pytest.mark.any_backend


def pruned(trunk):
    """A pack whose open task lacks half of the trunk's weights; its trunk, and the whole trunk."""
    net = packnet_tf.PackNet(trunk)
    student = net.add_task("imagenet", layers.Identity()).trunk
    teacher = cloning.plain_trunk(net.state.trunk, student)
    net.prune(0.5)
    return net, student, teacher


def repair(trunk, pictures, epochs=8, learning_rate=0.01):
    """The errors before and after the repair of half a trunk."""
    _, student, teacher = pruned(trunk)
    return match(student, teacher, pictures, epochs, learning_rate)


def test_images_may_come_in_uneven_batches_with_labels_that_count_for_nothing():
    trunk, _ = pretrained()
    before, after = repair(trunk, Batches())
    measured, unchanged = repair(trunk, images(), epochs=0)
    assert measured == unchanged
    assert before == pytest.approx(measured, rel=1e-5)
    assert after < 0.5 * before


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a dataset of TensorFlow's")
def test_images_may_be_a_dataset():
    import tensorflow as tf

    x = images()
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x))))
    trunk, _ = pretrained()
    before, after = repair(trunk, dataset.batch(32))
    assert after < 0.5 * before


@pytest.mark.parametrize(
    "name", [*slow("wrappers around a model", "text encoder"), "several outputs"]
)
def test_trunks_of_every_shape_are_repaired(name):
    trunk = NETWORKS[name][0]()
    net, student, teacher = pruned(trunk)
    before, after = match(student, teacher, samples(trunk, size=32), 8, learning_rate=0.003)
    assert 0 < after < 0.9 * before
    net.commit()
    keras.tree.assert_same_structure(net.task_model("imagenet").output, trunk.output)
    net.add_task("next", head_for(trunk))
    net.prune(0.5)
    net.commit()
    assert net.tasks == ("imagenet", "next")


def test_a_trunk_in_mixed_precision_is_repaired():
    keras.config.set_dtype_policy("mixed_float16")
    trunk, _ = pretrained()
    before, after = repair(trunk, images())
    assert after < 0.6 * before


def test_the_teacher_and_all_that_was_measured_stay_as_they_were():
    trunk, _ = pretrained()
    _, student, teacher = pruned(trunk)
    x = images()
    wanted, start = logits(teacher, x), values(student.non_trainable_variables)
    match(student, teacher, x, 1, learning_rate=0.01)
    assert np.array_equal(logits(teacher, x), wanted)
    assert same(values(student.non_trainable_variables), start)  # moving statistics among them


def test_what_every_packed_layer_takes_in_is_matched_also_within_nested_models():
    block_in = keras.Input((8,), name="block_in")
    y = layers.Dense(8, activation="relu", name="inner1")(block_in)
    block = keras.Model(block_in, layers.Dense(8, name="inner2")(y), name="block")
    inputs = keras.Input((12,), name="features")
    x = layers.Dense(8, activation="relu", name="stem")(inputs)
    x = layers.LayerNormalization(name="norm")(block(x))
    row = keras.Sequential([keras.Input((8,)), layers.Dense(7), layers.Dense(6)], name="row")
    trunk = keras.Model(inputs, row(x), name="trunk")
    net = packnet_tf.PackNet(trunk)
    model = net.add_task("imagenet", layers.Identity())
    matching = Matching(model.trunk, trunk)
    # Into the block, inner2, the row and its second layer (not into stem: that is the input).
    shapes = [tensor.shape for tensor in keras.tree.flatten(matching.student.output)]
    assert shapes == [(None, 8), (None, 8), (None, 8), (None, 7), (None, 6)]
    assert np.all(np.array(matching(images(trunk)))[:, :, 0] == 0)
    assert len(keras.tree.flatten(Matching(model.trunk, trunk, False).student.output)) == 1


def test_the_rate_falls_along_half_a_cosine():
    rates = [cosine(0.4, 4)(epoch, None) for epoch in range(4)]
    assert rates == pytest.approx([0.4, 0.2 + 0.1 * 2**0.5, 0.2, 0.2 - 0.1 * 2**0.5])


def test_a_trunk_may_fold_windows_into_the_batch():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 6))
    x = keras.ops.reshape(layers.Dense(4, name="first")(inputs), (-1, 2, 4))  # four windows each
    x = keras.ops.reshape(layers.Dense(4, activation="relu", name="within")(x), (-1, 8 * 4))
    net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(5)(x)))
    images = np.random.default_rng(0).normal(size=(24, 8, 6)).astype("float32")
    adopted = net.adopt("base", 0.3, images=images, epochs=3, verbose=0)
    assert 0 < adopted.error_repaired < adopted.error_pruned
