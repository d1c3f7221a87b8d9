"""VGG-16 with dropout in its fully connected layers, with or without batch normalisation."""

import keras
from keras import layers

from packnet_tf.apps import cli

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, filters
DROPOUT = 0.5


@cli.channels_last()
def vgg16(size: int, batch_norm: bool = False, weights: str | None = None) -> keras.Model:
    """Builds VGG-16 as the PackNet paper trains it, with its ImageNet classifier.

    The VGG-16 of keras.applications has neither dropout nor batch normalisation.

    Args:
        size: height and width of the images in pixels; ImageNet weights are for 224.
        batch_norm: a BatchNormalization after every convolution (VGG-16-BN).
        weights: None for random weights; "imagenet" for those of keras.applications, which has
            none with batch normalisation; or the path of a Keras weights file of this model.

    Returns:
        A Functional model from pixels, scaled as the weights expect, to 1000 probabilities.
        Layers are named as in keras.applications, ending in `fc1`, `fc2` and `predictions`.

    Raises:
        ValueError: there are no ImageNet weights for it.

    Source: Simonyan & Zisserman 2015, table 1 column D; dropout of the fully connected layers as
        in section 3.1. With batch normalisation: Mallya & Lazebnik 2018, section 4.
    """
    if batch_norm and weights == "imagenet":
        raise ValueError(
            "keras.applications has no ImageNet weights for VGG16_BN. Give the path of a Keras "
            "weights file (weights: vgg16_bn.weights.h5), or weights: none."
        )
    inputs = x = keras.Input((size, size, 3))
    for number, (depth, filters) in enumerate(BLOCKS, start=1):
        for place in range(1, depth + 1):
            name = f"block{number}_conv{place}"
            activation = None if batch_norm else "relu"
            x = layers.Conv2D(filters, 3, padding="same", activation=activation, name=name)(x)
            if batch_norm:
                # torchvision's momentum and epsilon, since pretrained weights come from there.
                x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
                x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = layers.Dense(4096, activation="relu", name=f"fc{number}")(x)
        x = layers.Dropout(DROPOUT, name=f"fc{number}_dropout")(x)
    outputs = layers.Dense(1000, activation="softmax", name="predictions")(x)
    model = keras.Model(inputs, outputs, name="vgg16_bn" if batch_norm else "vgg16")
    if weights == "imagenet":
        model.set_weights(keras.applications.VGG16(weights="imagenet").get_weights())
    elif weights is not None:
        model.load_weights(weights)
    return model
