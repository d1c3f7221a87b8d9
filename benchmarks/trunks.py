"""The networks that are measured, and packs of random tasks in them.

Weights are random, because neither speed nor the size of a file depends on what they are.
"""

import numpy as np

DARKNET = "TinyDarknet"
SIZES = {DARKNET: 96}  # pixels; the others take 224
CLASSES = 10
# Tiny Darknet as published: filters of its convolutions, 3 x 3 and 1 x 1 ("P": a pooling).
DARKNET_LAYERS = (
    *((16, 3), "P", (32, 3), "P"),
    *((16, 1), (128, 3), (16, 1), (128, 3), "P"),
    *((32, 1), (256, 3), (32, 1), (256, 3), "P"),
    *((64, 1), (512, 3), (64, 1), (512, 3), (128, 1)),
)


def build_trunk(name: str, image_size: int, file: str | None = None, output: str | None = None):
    """Makes a trunk.

    Args:
        name: "TinyDarknet" or a network of keras.applications. VGG16 comes with its two dense
            layers, as in the PackNet paper, the others with a mean over the picture.
        image_size: height and width in pixels.
        file: for TinyDarknet, a `.keras` model; without it weights are random.
        output: of that model, the layer to end at; default its last one.

    Returns:
        A functional `keras.Model` that takes images (batch, image_size, image_size, 3).
    """
    import keras

    from packnet_tf.apps.images.trunks import load_trunk

    shape = (image_size, image_size, 3)
    if name == DARKNET:
        return tiny_darknet(shape) if file is None else load_trunk(file, image_size, output)
    build = getattr(keras.applications, name)
    if name.startswith("VGG"):
        whole = build(weights=None, input_shape=shape)
        return keras.Model(whole.inputs, whole.get_layer("fc2").output, name="trunk")
    return build(weights=None, include_top=False, input_shape=shape, pooling="avg")


def tiny_darknet(shape: tuple[int, int, int]):
    """Tiny Darknet without its ImageNet head: 15 convolutions, 128 features."""
    import keras
    from keras import layers

    inputs = keras.Input(shape, name="image")
    x = inputs
    for number, layer in enumerate(DARKNET_LAYERS, start=1):
        if layer == "P":
            x = layers.MaxPooling2D(padding="same", name=f"pool{number}")(x)
            continue
        filters, size = layer
        x = layers.Conv2D(filters, size, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.LeakyReLU(0.1, name=f"leaky{number}")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="mean")(x), name="trunk")


def packed(trunk, tasks: int, until: int | None = None):
    """A pack of tasks with equal shares; random steps take the place of training.

    Args:
        trunk: the model.
        tasks: how many share it.
        until: how many of them to pack; default all.
    """
    import keras

    import packnet_tf

    net = packnet_tf.PackNet(trunk)
    for number, ratio in enumerate(packnet_tf.equal_shares(tasks)[:until], start=1):
        model = net.add_task(f"task{number}", keras.layers.Dense(CLASSES))
        _step(model, np.random.default_rng(number))
        net.prune(ratio)
        net.commit()
    return net


def _step(model, rng) -> None:
    """Moves all that is trained by a tenth of its spread, so that all tasks differ."""
    import keras

    for variable in model.trainable_variables:
        values = keras.ops.convert_to_numpy(variable)
        step = rng.standard_normal(values.shape, dtype=np.float32)
        variable.assign(values + step * np.float32(0.1 * values.std() + 0.01))
