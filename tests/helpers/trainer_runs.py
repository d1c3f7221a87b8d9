"""Runs of the trainer that tests start in processes of their own."""

import contextlib
import hashlib
import json
import os
import pathlib
import sys

import keras
import numpy as np
from keras import layers

import packnet_tf
from helpers.pack_helpers import SPARSE, data, functional, values
from packnet_tf.packing.policy import own_weights

CLASS_WEIGHT = {0: 3.0, 2: 0.5}


def trunk(norm=True, dropout=0.2):
    """A little convolutional network with all that has a state of its own."""
    stack = [
        layers.Conv2D(8, 3, name="conv", use_bias=not norm),
        *([layers.BatchNormalization(name="norm", momentum=0.5)] if norm else []),
        layers.ReLU(name="relu"),
        *([layers.Dropout(dropout, name="dropout")] if dropout else []),
        layers.Conv2D(8, 3, activation="relu", name="conv2"),
        layers.GlobalAveragePooling2D(name="pool"),
    ]
    return functional(*stack, shape=(8, 8, 1))


def augmented(x, y, batch_size=16):
    """Shuffled and changed at random, differently in every epoch."""
    import tensorflow as tf

    pairs = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=5)
    seeds = tf.data.Dataset.random(6, rerandomize_each_iteration=True).batch(2)

    def change(pair, seed):
        image, label = pair
        return image + tf.random.stateless_normal(tf.shape(image), seed, stddev=0.1), label

    return tf.data.Dataset.zip((pairs, seeds)).map(change).batch(batch_size)


def three_ways(directory):
    """Three tasks: one pruned at once, one gradually, one automatically."""
    keras.utils.set_random_seed(11)
    model = trunk()
    net = packnet_tf.PackNet(model)
    x, y = data(model, size=96)
    x *= (1 + y)[:, None, None, None]  # of a contrast that can be learned, and lost by pruning
    tasks = [
        packnet_tf.Task(name, layers.Dense(3), train, (x, (y + i) % 3), (x, (y + i) % 3))
        for i, (name, train) in enumerate(
            {"one": (x, y), "two": augmented(x, (y + 1) % 3), "three": (x, (y + 2) % 3)}.items()
        )
    ]
    trainer = packnet_tf.PackTrainer(
        net,
        keras.optimizers.Adam,
        epochs=6,
        retrain_epochs=2,
        learning_rate=lambda epoch: 0.1 / (1 + epoch / 2),
        retrain_learning_rate=1e-4,
        prune=[
            0.5,
            packnet_tf.polynomial_decay(0.0, 0.6, begin_step=0, end_step=30, frequency=3),
            packnet_tf.Auto(max_drop=0.1, step=0.6, patience=2),
        ],
        batch_size=16,
        directory=directory,
    )
    return net, trainer.fit(tasks)


def equal_parts(strategy=None, fit=False, directory=None):
    """Two tasks on batches that divide by two, without what depends on the parts of a batch."""
    keras.utils.set_random_seed(3)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = trunk(norm=False, dropout=0.0)
        net = packnet_tf.PackNet(model)
        x, y = data(model, size=32)
        logits = []
        if fit:
            import tensorflow as tf

            for name, ratio in {"one": 0.5, "two": 0.0}.items():
                keras.utils.set_random_seed(4)
                view = net.add_task(name, layers.Dense(3))
                view.compile(keras.optimizers.SGD(0.05, momentum=0.9), SPARSE, jit_compile=False)
                batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
                callback = packnet_tf.PackNetCallback(ratio, 2)
                view.fit(
                    batches, epochs=4, verbose=0, callbacks=[callback], class_weight=CLASS_WEIGHT
                )
                logits.append(answers(net.task_model("one"), x))
        else:
            trainer = packnet_tf.PackTrainer(
                net, epochs=2, retrain_epochs=2, learning_rate=0.05, prune=[0.5, 0.0],
                batch_size=16, verbose=False, directory=directory,
            )  # fmt: skip
            tasks = [
                packnet_tf.Task(name, layers.Dense(3), (x, y), class_weight=CLASS_WEIGHT)
                for name in ("one", "two")
            ]
            for count in (1, 2):
                trainer.prune = [0.5, 0.0][:count]
                trainer.fit(tasks[:count])
                logits.append(answers(net.task_model("one"), x))
        assert np.array_equal(*logits), "task one has changed"
    return net


def answers(model, x):
    """Logits, computed on this process's first replica alone."""
    return keras.ops.convert_to_numpy(model(x, training=False))


def numbers(net):
    """Every number of a pack of committed tasks: weights, owners, what each task has itself."""
    variables = [variable for w in net.state.weights.values() for variable in (w.packed, w.owner)]
    variables += [variable for _, variable in own_weights(net.state.trunk)]
    records = [np.frombuffer(record.values, np.float32) for record in net.state.committed]
    return values(variables) + records


def environment():
    """Variables for a process of its own that runs this file."""
    roots = [pathlib.Path(packnet_tf.__file__).parent.parent, pathlib.Path(__file__).parents[1]]
    path = os.pathsep.join([*map(str, roots), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}


def digest(net):
    """One line that differs where any number of a pack does."""
    hashed = hashlib.sha256()
    for value in numbers(net):
        hashed.update(np.ascontiguousarray(value).tobytes())
    return hashed.hexdigest()


def worker(directory, index, ports):
    """One of two workers: packs with the trainer, then with fit."""
    cluster = {"worker": [f"localhost:{port}" for port in ports.split(",")]}
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": int(index)}}
    )
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    for way, fit in {"trainer": False, "fit": True}.items():
        net = equal_parts(strategy, fit, pathlib.Path(directory) / "run")
        print(way, digest(net), flush=True)
        if int(index) == 0:
            net.save(pathlib.Path(directory) / f"{way}.keras")


def packs_with_an_empty_replica(strategy, fit):
    """Tells whether all numbers of a pack are finite though its last batch has one example."""
    import keras
    from keras import layers

    x = np.random.default_rng(0).normal(size=(17, 8)).astype("float32")
    y = x[:, :3].argmax(1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with strategy.scope():
        image = keras.Input((8,))
        features = layers.BatchNormalization()(layers.Dense(16)(image))
        net = packnet_tf.PackNet(keras.Model(image, features))
        if fit:
            model = net.add_task("a", layers.Dense(3))
            model.compile(keras.optimizers.SGD(0.05), loss)
            packing = packnet_tf.PackNetCallback(0.5, 1)
            model.fit(x, y, batch_size=16, epochs=2, callbacks=[packing], verbose=0)
        else:
            trainer = packnet_tf.PackTrainer(
                net, epochs=1, retrain_epochs=1, learning_rate=0.05, batch_size=16, verbose=False
            )
            trainer.fit([packnet_tf.Task("a", layers.Dense(3), (x, y))])
    weights = [np.array(weight) for weight in net.task_model("a").weights]
    return net.tasks == ("a",) and all(np.isfinite(weight).all() for weight in weights)


def weights_in_statistics(strategy, last):
    """Returns the least and the largest weight of an example in measured means, as "1.00-1.00".

    Args:
        strategy: of the model.
        last: size of the last batch; the one before it has 8.
    """
    import tensorflow as tf

    count = 8 + last
    with strategy.scope():
        inputs = keras.Input((count,))
        normal = layers.BatchNormalization()
        net = packnet_tf.PackNet(keras.Model(inputs, layers.Dense(3)(normal(inputs))))
        model = net.add_task("a", layers.Dense(2))
    # The mean of feature i is the weight of example i.
    data = tf.data.Dataset.from_tensor_slices(np.eye(count, dtype="float32")).batch(8)
    packnet_tf.update_statistics(model, data)
    mean = model.trunk.get_layer(normal.name).moving_mean.value
    weights = [count * own.numpy() for own in strategy.experimental_local_results(mean)]
    return f"{np.min(weights):.2f}-{np.max(weights):.2f}"


def answers_as_committed(strategy):
    """Tells whether a model on several devices answers as its task does once it is committed."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32") * np.float32([1, 2, 3, 4])
    y = (x[:, 0] + x[:, 1] > 0).astype("int32")
    with strategy.scope():
        inputs = keras.Input((4,))
        normal = layers.BatchNormalization()(layers.Dense(8)(inputs))
        net = packnet_tf.PackNet(keras.Model(inputs, normal))
        model = net.add_task("a", layers.Dense(2))
        model.compile(keras.optimizers.SGD(0.05), SPARSE)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    net.commit()
    answers = (m.predict(x, batch_size=16, verbose=0) for m in (model, net.task_model("a")))
    return np.array_equal(*answers)


def same_on_every_device():
    """Packs on two devices with the trainer and with fit, against one device; refuses XLA there."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for fit in (False, True):
        one, two = equal_parts(fit=fit), equal_parts(strategy, fit)
        for path, weight in two.state.weights.items():
            for variable in weight.variables:
                first, second = variable.value.values
                assert np.array_equal(first.numpy(), second.numpy()), path
            assert np.array_equal(one.owners()[path], two.owners()[path]), path
        largest = max(
            np.max(np.abs(a - b)) for a, b in zip(numbers(one), numbers(two), strict=True)
        )
        print("fit" if fit else "trainer", largest)
    print("weights", *(weights_in_statistics(strategy, size) for size in (8, 5, 1)))
    print("committed", answers_as_committed(strategy))
    print("empty", *(packs_with_an_empty_replica(strategy, fit) for fit in (False, True)))
    try:
        packnet_tf.PackTrainer(two, jit_compile=True, verbose=False)
    except ValueError as error:
        print("refusal", error)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
