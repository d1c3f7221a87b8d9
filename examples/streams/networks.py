"""Writes a small network of a continual-learning paper, with random weights, as a trunk.

  python examples/streams/networks.py lenet lenet.keras
  python examples/streams/networks.py vgg16_bn vgg16_bn.keras --paper

lenet     WSN on the 20 superclasses of CIFAR-100: two convolutions, two dense layers
vgg16_bn  CPG on the same: 13 convolutions with normalisation, two dense layers
alexnet   WSN on 10 tasks of CIFAR-100: three convolutions, two dense layers, dropout
resnet18  SupSup on 20 tasks of CIFAR-100, WSN on 5-Datasets: a ResNet-18 of 20 filters
conv4     WSN on TinyImageNet: four convolutions with strides, two dense layers

Layers, filters and strides are those of the papers' code: github.com/ihaeyong/WSN,
github.com/RAIVNLab/supsup, github.com/ivclab/CPG. By default networks are narrow enough for two
CPU cores; --paper has the papers' own width, and --width another share of it. Files take pixels of
0 to 1, as `packnet train` and `packnet compare` give them (pixel_scale: unit). All layers end
in features; heads are per task. Weights are drawn from --seed, with He's deviations.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from keras import layers

# The share of the paper's width by default, and the images' side in pixels.
NARROW = {"lenet": 1, "vgg16_bn": 0.125, "alexnet": 0.25, "resnet18": 0.5, "conv4": 0.25}
SIDE = dict.fromkeys(NARROW, 32) | {"conv4": 64}


class Builder:
    """Adds layers to a network whose numbers of filters are a share of those that are given."""

    def __init__(self, pixels: int, width: float):
        self.inputs = self.last = keras.Input((pixels, pixels, 3))
        self.width = width

    def add(self, *stack: keras.layers.Layer) -> "Builder":
        for layer in stack:
            self.last = layer(self.last)
        return self

    def filters(self, count: int) -> int:
        return max(1, round(count * self.width))

    def conv(
        self, count: int, kernel: int, strides: int = 1, padding: str = "same", norm: bool = False
    ) -> "Builder":
        """Adds a convolution without bias and, if `norm`, its normalisation; no activation."""
        self.add(
            layers.Conv2D(
                self.filters(count), kernel, strides, padding, use_bias=False,
                kernel_initializer="he_normal",
            )
        )  # fmt: skip
        return self.add(layers.BatchNormalization()) if norm else self

    def dense(self, *counts: int, bias: bool = False, dropout: float = 0) -> "Builder":
        """Adds dense layers with ReLU."""
        for count in counts:
            self.add(
                layers.Dense(
                    self.filters(count), "relu", use_bias=bias, kernel_initializer="he_normal"
                )
            )
            if dropout:
                self.add(layers.Dropout(dropout))
        return self

    def model(self, name: str) -> keras.Model:
        return keras.Model(self.inputs, self.last, name=name)


def lenet(net: Builder) -> None:
    for count in (20, 50):
        net.conv(count, 5).add(layers.ReLU(), layers.MaxPooling2D(3, 2, "same"))
    net.add(layers.Flatten()).dense(800, 500)


def vgg16_bn(net: Builder) -> None:
    for count, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            net.conv(count, 3, norm=True).add(layers.ReLU())
        net.add(layers.MaxPooling2D())
    net.add(layers.Flatten()).dense(4096, 4096, bias=True)


def alexnet(net: Builder) -> None:
    for count, kernel, dropout in ((64, 4, 0.2), (128, 3, 0.2), (256, 2, 0.5)):
        net.conv(count, kernel, padding="valid")
        net.add(layers.ReLU(), layers.Dropout(dropout), layers.MaxPooling2D())
    net.add(layers.Flatten()).dense(2048, 2048, dropout=0.5)


def resnet18(net: Builder) -> None:
    net.conv(20, 3, norm=True).add(layers.ReLU())
    for stage, count in enumerate((20, 40, 80, 160)):
        for block in range(2):
            strides = 2 if stage and not block else 1
            before = net.last
            net.conv(count, 3, strides, norm=True).add(layers.ReLU()).conv(count, 3, norm=True)
            branch = net.last
            net.last = before
            if strides > 1:
                net.conv(count, 1, strides, norm=True)
            net.last = layers.ReLU()(layers.Add()([branch, net.last]))
    net.add(layers.GlobalAveragePooling2D())


def conv4(net: Builder) -> None:
    for _ in range(4):
        net.conv(160, 3, strides=2).add(layers.ReLU())
    net.add(layers.Flatten()).dense(640, 640)


BUILDERS = {build.__name__: build for build in (lenet, vgg16_bn, alexnet, resnet18, conv4)}


def build(name: str, width: float, seed: int = 0) -> keras.Model:
    """Builds a network.

    Args:
        name: one of `NARROW`.
        width: share of the paper's filters.
        seed: for the random weights.

    Returns:
        A Functional model from images (batch, side, side, 3), 0 to 1, to features (batch, n).

    Raises:
        ValueError: the width is not positive.

    Example:
        >>> build("resnet18", width=1).output_shape
        (None, 160)
    """
    if not width > 0:
        raise ValueError(f"--width is {width:g}; expected a positive share of the paper's width.")
    keras.utils.set_random_seed(seed)
    net = Builder(SIDE[name], width)
    BUILDERS[name](net)
    return net.model(name)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=NARROW, help="name, see above")
    parser.add_argument("file", type=pathlib.Path, help="the .keras file to write")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--paper", action="store_true", help="of the paper's own width")
    size.add_argument("--width", type=float, help="share of the paper's width")
    parser.add_argument("--seed", type=int, default=0, help="for the random weights (default 0)")
    given = parser.parse_args(arguments)
    width = 1 if given.paper else NARROW[given.network] if given.width is None else given.width
    try:
        if given.file.suffix != ".keras":
            raise ValueError(f"'{given.file}' is to be a Keras model; write {given.network}.keras.")
        model = build(given.network, width, given.seed)
        given.file.parent.mkdir(parents=True, exist_ok=True)
        model.save(given.file)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    pixels, features = model.input_shape[1], model.output_shape[-1]
    print(
        f"{given.file}: {given.network}, {width:g} of the paper's width, {model.count_params():,} "
        f"weights, images of {pixels} pixels, {features} features"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
