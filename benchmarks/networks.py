"""Networks to measure, packs of random tasks, and training steps.

Weights are random, because neither speed nor file size depends on their values.
"""

import dataclasses

import numpy as np

CLASSES = 10
# Filters of Tiny Darknet's convolutions, 3 x 3 and 1 x 1, as published ("P" is a pooling layer).
DARKNET_LAYERS = (
    *((16, 3), "P", (32, 3), "P"),
    *((16, 1), (128, 3), (16, 1), (128, 3), "P"),
    *((32, 1), (256, 3), (32, 1), (256, 3), "P"),
    *((64, 1), (512, 3), (64, 1), (512, 3), (128, 1)),
)


def sized(**pixels: int) -> dict[str, tuple[str, int]]:
    """Returns pairs of a network's name and its image size in pixels, by title."""
    return {f"{name} {size} px": (name, size) for name, size in pixels.items()}


def build_trunk(name: str, pixels: int):
    """Builds "TinyDarknet" or a model of keras.applications, for images (batch, pixels, pixels, 3).

    VGG16 keeps its two dense layers, as in the PackNet paper. The others end in average pooling.
    """
    import keras

    shape = (pixels, pixels, 3)
    if name == "TinyDarknet":
        return tiny_darknet(shape)
    build = getattr(keras.applications, name)
    if name.startswith("VGG"):
        whole = build(weights=None, input_shape=shape)
        return keras.Model(whole.inputs, whole.get_layer("fc2").output, name="trunk")
    return build(weights=None, include_top=False, input_shape=shape, pooling="avg")


def tiny_darknet(shape: tuple[int, int, int]):
    """Builds Tiny Darknet without its ImageNet head: 15 convolutions, 128 features."""
    import keras
    from keras import layers

    x = inputs = keras.Input(shape)
    for layer in DARKNET_LAYERS:
        if layer == "P":
            x = layers.MaxPooling2D(padding="same")(x)
            continue
        x = layers.Conv2D(*layer, padding="same", use_bias=False)(x)
        x = layers.LeakyReLU(0.1)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="trunk")


def packed(trunk, tasks: int, until: int | None = None, stem: str | None = None):
    """Packs tasks of equal shares, or the first `until` of them; trains random steps only."""
    import keras

    import packnet_tf

    net = packnet_tf.PackNet(trunk, stem=stem)
    for number, ratio in enumerate(packnet_tf.equal_shares(tasks)[:until], start=1):
        model = net.add_task(f"task{number}", keras.layers.Dense(CLASSES))
        rng = np.random.default_rng(number)
        for variable in model.trainable_variables:  # noise, so that tasks differ
            values = keras.ops.convert_to_numpy(variable)
            step = rng.standard_normal(values.shape, dtype=np.float32)
            variable.assign(values + step * np.float32(0.1 * values.std() + 0.01))
        net.prune(ratio)
        net.commit()
    return net


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with a batch size, a mode of training and an optimizer.

    Attributes:
        network, pixels: see `build_trunk`.
        batch: images per batch.
        mode: "graph", "XLA" or "mixed_bfloat16" (in graph mode).
        optimizer: "SGD" (with momentum 0.9) or "Adam".
        goal: largest ratio of the time of a packed step to that of a plain one.
    """

    network: str
    pixels: int
    batch: int
    mode: str = "graph"
    optimizer: str = "SGD"
    goal: float = 1.02

    @property
    def title(self) -> str:
        return f"{self.network} {self.pixels} px x {self.batch}, {self.mode}, {self.optimizer}"

    @property
    def by_xla(self) -> bool:
        """Whether XLA compiles the steps; on JAX it always does."""
        import keras

        return self.mode == "XLA" or keras.backend.backend() == "jax"

    def new_optimizer(self, rate: float):
        """Returns a new optimizer with a learning rate."""
        import keras

        adam = self.optimizer == "Adam"
        return keras.optimizers.Adam(rate) if adam else keras.optimizers.SGD(rate, momentum=0.9)

    def model(self, before: int | None = None, overlay: float | None = None):
        """Returns the compiled network with a head: plain, or as the task after `before` others."""
        import keras

        trunk, head = build_trunk(self.network, self.pixels), keras.layers.Dense(CLASSES)
        if before is None:
            return self.compile(keras.Model(trunk.inputs, head(trunk.output)))
        net = packed(trunk, before + 1, before)
        return self.compile(net.add_task("next", head, overlay=overlay))

    def compile(self, model):
        """Compiles a model with the settings of the case, and returns it."""
        xla = self.by_xla
        model.compile(self.new_optimizer(1e-4), loss(), metrics=["accuracy"], jit_compile=xla)
        return model

    def random_batch(self):
        """Returns random images, float32, and labels, int32."""
        rng = np.random.default_rng(0)
        shape = (self.batch, self.pixels, self.pixels, 3)
        return rng.random(shape, np.float32), rng.integers(0, CLASSES, self.batch, np.int32)


def loss():
    """Returns the loss for logits and integer labels."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def repeated(batch, steps: int):
    """Returns a dataset that repeats a batch."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False  # else the end of an epoch waits for tf.data's tuner
    return tf.data.Dataset.from_tensors(batch).repeat(steps).prefetch(2).with_options(options)


def fit_steps(model, batch, steps: int) -> None:
    """Trains a model for one epoch of some steps."""
    model.fit(repeated(batch, steps), verbose=0, shuffle=False)
