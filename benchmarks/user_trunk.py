"""A user's trunk and tasks, and plain training of a task's model, for `saliency` and `reuse`."""

import argparse

BATCH = 32
BATCHES = 30  # that inputs and gradients are measured on


def prepared(flags: argparse.Namespace, task: str, seed: int = 0):
    """Returns the trunk, the shuffled files of a task by split, and a pipeline for them."""
    from packnet_tf.apps.images.folders import read_folder, shuffled
    from packnet_tf.apps.images.pipeline import Pipeline
    from packnet_tf.apps.images.trunks import load_trunk

    trunk = load_trunk(flags.trunk, flags.image_size, flags.trunk_output)
    found = read_folder(flags.data / task).files
    files = {split: shuffled(listed, seed) for split, listed in found.items()}
    return trunk, files, Pipeline(trunk.input_shape[1:], BATCH, seed)


def compiled(model, rate: float):
    """Compiles the model of a task, and returns it."""
    import keras

    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(model, data, epochs: int, flags: argparse.Namespace, *callbacks) -> None:
    """Trains the model of a task with a fresh optimizer."""
    import keras

    from packnet_tf.apps.packs.rates import decayed

    rate = decayed(flags.learning_rate, epochs)
    decay = keras.callbacks.LearningRateScheduler(lambda epoch: rate(epoch))
    compiled(model, flags.learning_rate).fit(
        data, epochs=epochs, callbacks=[decay, *callbacks], verbose=0
    )


def accuracy(model, data) -> float:
    """Returns the accuracy of a compiled model, 0 to 1."""
    return float(model.evaluate(data, verbose=0, return_dict=True)["accuracy"])
