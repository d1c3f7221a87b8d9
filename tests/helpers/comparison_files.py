"""A small comparison on disk: two made-up tasks, a trunk, a file."""

import pathlib

import yaml

from helpers.image_folders import write_task, write_trunk

SMALL = {
    "trunk": {"network": "small.keras", "output": "features"},
    "tasks": {"shades": {"flip": True}, "greys": {}},
    "seeds": [0],
    "settings": {"epochs": 3, "prune_epoch": 2, "learning_rate": 0.05, "batch_size": 8},
    "methods": {"packnet": {}, "individual": None},
}


def write_images(folder: pathlib.Path) -> pathlib.Path:
    """The two tasks and the trunk."""
    write_task(folder / "shades")
    write_task(folder / "greys", classes=("a", "b", "c"), seed=1)
    write_trunk(folder / "small.keras")
    return folder


def write_trunk_without_norms(path: pathlib.Path) -> pathlib.Path:
    """As `write_trunk`, of convolutions alone."""
    import keras
    from keras import layers

    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = layers.Conv2D(12, 3, strides=2, activation="relu", name="features")(x)
    keras.Model(inputs, x, name="without_norms").save(path)
    return path


def write_file(folder: pathlib.Path, **changes) -> pathlib.Path:
    """The file, with other values at its top."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return path
