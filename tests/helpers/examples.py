"""What examples in docstrings and pages may use without saying where it comes from."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

import packnet_tf
from helpers.image_folders import small_pack, write_task


def shared_names(trunk, classes=3, size=24):
    """The names that docstrings and pages have in common: a trunk, and data for it.

    Args:
        trunk: the trunk.
        classes, size: number of classes and of examples.
    """
    images = np.random.default_rng(0).normal(size=(size, *trunk.input_shape[1:])).astype("float32")
    labels = np.arange(size) % classes
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    return {
        "keras": keras, "np": np, "tf": tf, "packnet_tf": packnet_tf, "trunk": trunk,
        "images": images, "birds": images, "labels": labels, "head": layers.Dense(classes),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "train": data, "validation": data, "test": data,
    }  # fmt: skip


# The pages have one story: a garden whose pack has a base and two tasks, and gets more.
GARDEN = {"flowers": ["daisy", "rose", "tulip"], "leaves": ["birch", "maple", "oak"]}
THREE = {"clothing": ["hat", "shoe"], "hand_signs": ["a", "b"], "scenes": ["city", "sea", "wood"]}
SIZE = 96


def image_trunk():
    """A trunk of a few hundred weights for RGB images of 96 x 96 pixels from 0 to 255."""
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 8, strides=8, use_bias=False, name="block_1")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    shortcut = x
    x = layers.Conv2D(4, 3, padding="same", name="block_12")(x)
    x = layers.add([x, shortcut], name="block_12_add")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="block_13")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="trunk")


def write_garden(folder):
    """Writes what the commands of the pages find in their folder: photographs, and two packs."""
    for seed, (task, classes) in enumerate(GARDEN.items()):
        for data in (folder / "photos" / task, folder / task):
            write_task(data, classes, size=SIZE, train=4, held_out=2, seed=seed)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg")
    net = small_pack(GARDEN, base="base", trunk=image_trunk())
    for task in GARDEN:
        net.note_metadata(task, data=str(folder / "photos" / task))
    net.save(folder / "garden.keras")
    small_pack(THREE, trunk=image_trunk()).save(folder / "pack.keras")


class MyLayer(layers.Layer):
    """A layer of the reader, with two kernels."""

    def build(self, shape):
        self.left = self.add_weight((shape[-1], 4), name="left")
        self.right = self.add_weight((4, shape[-1]), name="right")

    def call(self, inputs):
        return inputs @ self.left @ self.right


def page_names():
    """What a page starts from, within a folder of `write_garden`."""
    trunk = image_trunk()
    names = shared_names(trunk, size=8)
    imagenet_head = layers.Dense(10)
    imagenet_head.build(trunk.output_shape)
    data = names["train"]
    return {
        **names,
        "net": packnet_tf.load("garden.keras"),
        "tasks": {"birds": (data, data, 200), "cars": (data, data, 196)},
        "photos": names["images"], "flowers": names["images"], "leaves": -names["images"],
        "imagenet_head": imagenet_head, "data": data,
        "MyLayer": MyLayer, "train2": data, "validation2": data, "test2": data,
    }  # fmt: skip
