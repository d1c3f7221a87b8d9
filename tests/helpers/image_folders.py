"""Small made-up image tasks on disk."""

import numpy as np
from PIL import Image

from packnet_tf.apps.packs.plan import Plan


def write_task(root, classes=("dark", "light"), size=16, train=12, held_out=6, seed=0, test=True):
    """Images whose class is their brightness; returns the folder."""
    rng = np.random.default_rng(seed)
    counts = {"train": train, "validation": held_out, **({"test": held_out} if test else {})}
    for split, count in counts.items():
        for place, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                level = 60 + 120 * place / max(1, len(classes) - 1)
                pixels = rng.normal(level, 30, (size, size, 3)).clip(0, 255).astype("uint8")
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return root


def write_place(place):
    """Two tasks, `shades` and `greys`, and a trunk, `small.keras`, in a folder."""
    write_task(place / "shades")
    write_task(place / "greys", classes=("a", "b", "c"), seed=1, test=False)
    write_trunk(place / "small.keras")
    return place


def short_plan(place, **changes):
    """The settings of a short `packnet train` on that folder."""
    settings = {
        "pack": str(place / "pack.keras"),
        "trunk": str(place / "small.keras"),
        "trunk_output": "features",
        "epochs": 3,
        "prune_epoch": 2,
        "batch_size": 8,
        "learning_rate": 0.05,
    }
    return Plan(**{**settings, **changes})


def task_plan(place, task="shades", **changes):
    """Those settings for one of its tasks."""
    return short_plan(place, **{"task": task, "data": str(place / task), **changes})


def small_pack(tasks, base=None, trunk=None):
    """A pack for those images, whose tasks were not trained.

    Args:
        tasks: the classes of every task, by its name.
        base: name of the trunk as an adopted first task; None for no such task.
        trunk: a trunk for images with values from 0 to 255; default: one for 16 x 16 pixels.
    """
    import keras
    from keras import layers

    import packnet_tf
    from helpers.pack_helpers import jolt

    if trunk is None:
        inputs = keras.Input((16, 16, 3), name="image")
        x = layers.Conv2D(8, 3, strides=2, activation="relu")(layers.Rescaling(1 / 255)(inputs))
        trunk = keras.Model(inputs, layers.Flatten()(x), name="trunk")
    net = packnet_tf.PackNet(trunk)
    net.notes["pixel_range"] = "0,255"
    if base is not None:
        net.adopt(base, 0.5)
    for name, classes in tasks.items():
        jolt(net.add_task(name, layers.Dense(len(classes)), classes=classes))
        net.prune(0.5)
        net.commit()
    return net


def write_trunk(path, size=16):
    """A small convolutional network with a head of its own, saved as a .keras file."""
    import keras
    from keras import layers

    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(12, 3, strides=2, activation="relu", name="features")(x)
    x = layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, layers.Dense(5, name="old_head")(x), name="small").save(path)
    return path
