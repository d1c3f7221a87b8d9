"""Exported files, and their answers."""

import pathlib
import re

import keras
import numpy as np
from keras import layers

from helpers.int8_sessions import session_of
from helpers.pack_helpers import packed


def answers(path, *inputs, seed=0):
    """All answers of a file, to random inputs of its shapes where none are given."""
    session = session_of(path)
    entries = session.get_inputs()
    rng = np.random.default_rng(seed)
    given = inputs or [
        rng.integers(0, 2, (3, *entry.shape[1:])).astype(
            {"tensor(float)": "float32", "tensor(int32)": "int32"}[entry.type]
        )
        for entry in entries
    ]
    return session.run(None, {e.name: x for e, x in zip(entries, given, strict=True)})


def answer(path, *inputs):
    """The one answer of a file."""
    [found] = answers(path, *inputs)
    return found


def images(net, count=5):
    """Random inputs of the shape that the pack takes."""
    shape = net.task_model(net.tasks[0]).input_shape[1:]
    return np.random.default_rng(3).normal(size=(count, *shape)).astype("float32")


def files(folder):
    """The contents of the files of a folder, by name."""
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def without_hashes(names):
    """Names of files, sorted, with `shared.data` for `shared-1a2b3c4d5e6f.data`."""
    return sorted(re.sub(r"-[0-9a-f]{12}(?=\.data$)", "", name) for name in names)


def shared_file(folder):
    """The one file of shared weights of a bundle."""
    [path] = pathlib.Path(folder).glob("shared-*.data")
    return path


def net_of(kind):
    """A pack of two tasks on a trunk that is no plain convolutional network."""
    if kind == "recurrent":
        inputs = keras.Input((5, 3), name="sequence")
        outputs = layers.LSTM(4)(inputs)
    elif kind == "loop":
        inputs = keras.Input((5, 3), name="sequence")
        outputs = layers.SimpleRNN(4)(inputs)
    elif kind == "attention":
        inputs = keras.Input((5, 8), name="sequence")
        attended = layers.MultiHeadAttention(2, 4)(inputs, inputs)
        outputs = layers.GlobalAveragePooling1D()(attended)
    elif kind == "embedding":
        inputs = keras.Input((4,), dtype="int32", name="tokens")
        outputs = layers.Dense(9)(layers.Flatten()(layers.Embedding(10, 8)(inputs)))
    else:
        inputs = [keras.Input((6,), name="left"), keras.Input((3,), name="right")]
        outputs = layers.Dense(7)(layers.concatenate(inputs))
    return packed(keras.Model(inputs, outputs, name="trunk"), one=0.5, two=0.5)
