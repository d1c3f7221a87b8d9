"""Tiny trunks, data and shortcuts that the tests share."""

import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
from keras import layers

import packnet_tf
from packnet_tf.packing.layers import Packed

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp_trunk(activation="relu"):
    """12 -> 16 -> 8, a Sequential model."""
    return keras.Sequential(
        [
            keras.Input((12,), name="features"),
            layers.Dense(16, activation=activation, name="first"),
            layers.Dense(8, activation=activation, name="second"),
        ],
        name="mlp",
    )


def conv_trunk():
    """Two convolutions with BatchNormalization and a dense layer; 220 packed weights."""
    inputs = keras.Input((6, 6, 1), name="image")
    x = layers.Conv2D(4, 3, name="conv1", use_bias=False)(inputs)
    x = layers.BatchNormalization(name="norm1", momentum=0.5)(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.Conv2D(4, 3, name="conv2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(10, activation="relu", name="fc")(x)
    return keras.Model(inputs, x, name="conv")


def nested_trunk():
    """A nested model, and a dense layer that is called twice."""
    block_input = keras.Input((8,), name="block_input")
    y = layers.Dense(8, activation="relu", name="inner")(block_input)
    block = keras.Model(block_input, layers.LayerNormalization(name="inner_norm")(y), name="block")
    twice = layers.Dense(8, activation="tanh", name="twice")
    inputs = keras.Input((12,), name="features")
    x = block(layers.Dense(8, name="stem")(inputs))
    x = layers.add([x, twice(twice(x))], name="sum")
    return keras.Model(inputs, x, name="nested")


def conv1d_trunk():
    inputs = keras.Input((8, 2), name="signal")
    x = layers.Conv1D(4, 3, activation="relu", name="conv")(inputs)
    return keras.Model(inputs, layers.Flatten(name="flat")(x), name="conv1d")


def conv3d_trunk():
    inputs = keras.Input((4, 4, 4, 1), name="volume")
    x = layers.Conv3D(3, 2, activation="relu", name="conv")(inputs)
    x = layers.GlobalMaxPooling3D(name="pool")(x)
    return keras.Model(inputs, x, name="conv3d")


TRUNKS = {
    "mlp": mlp_trunk,
    "conv": conv_trunk,
    "nested": nested_trunk,
    "conv1d": conv1d_trunk,
    "conv3d": conv3d_trunk,
}


def functional(*stack, shape=(12,), **kwargs):
    """A Functional model of layers in a row."""
    inputs = keras.Input(shape, name="features")
    x = inputs
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x, **{"name": "trunk", **kwargs})


def data(model, classes=3, size=24, seed=0):
    """Random inputs of a model, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, *model.input_shape[1:])).astype("float32")
    projection = rng.normal(size=(x[0].size, classes))
    return x, np.argmax(x.reshape(size, -1) @ projection, axis=1)


def compiled(model, optimizer="sgd", **kwargs):
    """The model, compiled; XLA only where a test asks for it, since compiling takes seconds."""
    model.compile(optimizer, SPARSE, **{"metrics": ["accuracy"], "jit_compile": False, **kwargs})
    return model


def opened(net, optimizer="sgd", name="one", **kwargs):
    """The compiled model of a new task, with data."""
    model = compiled(net.add_task(name, keras.layers.Dense(3)), optimizer, **kwargs)
    return model, *data(model)


def fit(model, x, y, *callbacks, epochs=2, **kwargs):
    kwargs = {"batch_size": 8, "verbose": 0, **kwargs}
    return model.fit(x, y, epochs=epochs, callbacks=list(callbacks), **kwargs)


def jolt(model, seed=0, scale=0.5):
    """Moves all that training moves by random numbers: training, without its price."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        step = rng.normal(scale=scale, size=variable.shape)
        variable.assign_add(step.astype("float32"))
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization) and layer.trainable:
            step = rng.uniform(min(0.1, scale), scale, size=layer.moving_mean.shape)
            step = step.astype("float32")
            layer.moving_mean.assign_add(step)
            layer.moving_variance.assign_add(step)


def pack_task(net, name, ratio=0.5, classes=3, seed=0, scale=0.5, **kwargs):
    """Adds, "trains", prunes and commits a task; returns its model."""
    model = net.add_task(name, layers.Dense(classes, name="logits"), **kwargs)
    jolt(model, seed, scale)
    net.prune(ratio)
    jolt(model, seed + 1, scale / 5)
    net.commit()
    return model


def packed(trunk, **ratios):
    """A pack with one quickly packed task per ratio: `packed(trunk, one=0.5, two=0.5)`."""
    net = packnet_tf.PackNet(trunk)
    for seed, (name, ratio) in enumerate(ratios.items()):
        pack_task(net, name, ratio, seed=10 * seed)
    return net


class Scores(keras.callbacks.Callback):
    """Puts a worked-out score into the epoch logs, for callbacks that look for the best epoch."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.scores[epoch]


class Die(keras.callbacks.Callback):
    """Ends the process in the middle of an epoch, as a power cut does."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, 1):
            os._exit(99)


def backed_up_run(directory, die_at=None):
    """Packs a second task of 2 + 2 epochs; once more with the same directory, it goes on."""
    keras.utils.set_random_seed(7)
    trunk = conv_trunk()
    net = packed(trunk, one=0.5)
    x, y = data(trunk)
    model = compiled(net.add_task("two", layers.Dense(3)), keras.optimizers.Adam(0.05))
    callbacks = [
        packnet_tf.PackNetCallback(0.5, prune_epoch=2),
        keras.callbacks.BackupAndRestore(directory),
    ]
    history = fit(
        model, x, y, *callbacks, *([] if die_at is None else [Die(die_at)]), epochs=4, shuffle=False
    )
    return net, history


def run_python(code, *arguments, **environment):
    """Runs code in a new Python process that finds this library and these helpers."""
    roots = [pathlib.Path(packnet_tf.__file__).parent.parent, pathlib.Path(__file__).parents[1]]
    path = os.pathsep.join([*map(str, roots), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def logits(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def same(first, second):
    """Whether two lists of arrays are equal, bit for bit."""
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def packed_layers(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, Packed)]


def weights_of(net):
    """The `PackedWeight`s of a pack by path."""
    return net.state.weights


def owners(net):
    return {path: keras.ops.convert_to_numpy(w.owner) for path, w in net.state.weights.items()}


def claims(net):
    return {path: keras.ops.convert_to_numpy(w.claim) for path, w in net.state.weights.items()}


def kernels(net):
    """What the optimizer trains, by path."""
    return {path: values([w.trainable])[0] for path, w in net.state.weights.items()}


def break_task(net, place, value):
    """Puts a value into the last bias of the head of a committed task."""
    record = net.state.committed[place]
    changed = record.values[:-4] + np.float32(value).tobytes()
    net.state = net.state.with_committed(record.name, values=changed)


def state(net):
    """Every value of a pack, open task included."""
    variables = list(net.state.trunk.variables)
    for weight in net.state.weights.values():
        variables += weight.variables
    if net.open_model is not None:
        variables += net.open_model.variables
    records = [np.frombuffer(record.values, np.uint8) for record in net.state.committed]
    return values(variables) + records
