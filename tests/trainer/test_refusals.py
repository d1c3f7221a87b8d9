"""What the trainer refuses, and in which words."""

import importlib.util

import numpy as np
import pytest
from keras import layers

import packnet_tf
from pack_helpers import data, mlp_trunk, run_python
from packnet_tf import PackTrainer, Task
from packnet_tf.trainer.board import Board
from packnet_tf.trainer.data import blank_batch


def test_another_backend_is_told_what_to_use():
    run = run_python(
        """
        import packnet_tf
        from pack_helpers import mlp_trunk
        try:
            packnet_tf.PackTrainer(packnet_tf.PackNet(mlp_trunk()))
        except ValueError as error:
            print(error)
        """,
        KERAS_BACKEND="jax",
    )
    assert run.stdout.strip() == (
        "PackTrainer needs Keras's TensorFlow backend; this process runs on jax. Use model.fit "
        "with a PackNetCallback there, or set KERAS_BACKEND=tensorflow."
    )


def test_xla_on_several_devices_is_refused():
    run = run_python(
        """
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, parts)
        import packnet_tf
        from keras import layers
        from pack_helpers import data, mlp_trunk
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            net = packnet_tf.PackNet(mlp_trunk())
        try:
            packnet_tf.PackTrainer(net, jit_compile=True, verbose=False).fit(
                [packnet_tf.Task("a", layers.Dense(3), data(mlp_trunk()))])
        except ValueError as error:
            print(error)
        """
    )
    assert run.stdout.strip() == (
        "jit_compile=True trains on one device, and this pack is spread over 2: TensorFlow cannot "
        "compile the exchange of gradients with XLA. Write jit_compile=False."
    ), run.stderr


def test_data_that_end_after_the_first_pass_are_noticed():
    import tensorflow as tf

    trunk = mlp_trunk()
    x, y = data(trunk)
    batches = iter(tf.data.Dataset.from_tensor_slices((x, y)).batch(8))
    once = tf.data.Dataset.from_generator(
        lambda: batches,
        output_signature=(tf.TensorSpec((None, 12)), tf.TensorSpec((None,), tf.int64)),
    )
    trainer = PackTrainer(packnet_tf.PackNet(trunk), epochs=2, verbose=False)
    with pytest.raises(ValueError) as error:
        trainer.fit([Task("a", layers.Dense(3), once)])
    assert str(error.value) == (
        "The training data of task 'a' have no batches in epoch 1. A dataset made from a generator "
        "must begin again for every iterator."
    )


def test_tensorboard_is_asked_for_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError) as error:
        Board(tmp_path, True)
    assert str(error.value) == (
        "tensorboard=True needs the package of that name, which is not installed. Install it (pip "
        "install tensorboard), or leave tensorboard out."
    )
    Board(tmp_path, "auto")
    assert not list(tmp_path.iterdir())


def test_data_of_unknown_shape_are_looked_at():
    import tensorflow as tf

    x, y = data(mlp_trunk(), size=8)
    unknown = tf.data.Dataset.from_generator(lambda: [(x, y)], (tf.float32, tf.int64))
    assert unknown.element_spec[0].shape.rank is None
    images, labels, weights = blank_batch(unknown, 8)
    assert np.array_equal(images, x)
    assert np.array_equal(labels, y)
    assert weights is None
