"""How accurate a new task is, by the earlier tasks' weights that it sees.

Adopts the trunk as a base and packs --tasks beside it. Then each task of --last is, by itself,
added to that pack, trained, pruned, retrained and tested, in several ways:

  base      it sees the base alone, reuse="auto"
  all       it sees all earlier tasks' weights, reuse="all"
  layers    as all for a third of the epochs; then a layer no longer shows the weights of an earlier
            task (never those of the base) unless the gradient on them had a positive cosine with
            the signs of that task's own mean gradient in most of these epochs (after GRAPA)
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.command import machine, trunk_parser
from benchmarks.user_trunk import BATCHES, accuracy, compiled, prepared, train
from packnet_tf.apps import cli
from packnet_tf.reporting.tables import text_table

WAYS = ("base", "all", "layers")
RATIO = 0.75  # that every task prunes


def read_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the flags; default those of the process."""
    parser = trunk_parser("reuse", __doc__)
    flag = parser.add_argument
    flag("--tasks", required=True, help="folders of the earlier tasks, separated by commas")
    flag("--last", required=True, help="folders of the tasks to measure, separated by commas")
    flag("--epochs", type=int, default=6, help="before the prune, default %(default)s")
    flag("--retrain_epochs", type=int, default=3, help="after it, default %(default)s")
    flag("--learning_rate", type=float, default=0.003,
         help="of SGD in both, decayed to a tenth, default %(default)s")  # fmt: skip
    flag("--seeds", type=int, default=1, help="of --last, default %(default)s")
    flags = parser.parse_args(arguments)
    if flags.epochs < 3:
        parser.error("--epochs is at least 3: gradients are compared in the first third of them")
    return flags


def main() -> None:
    flags = read_flags()
    cli.start_keras()
    began, found = time.perf_counter(), measure(flags)
    show(found)
    seconds, about = round(time.perf_counter() - began, 1), machine()
    print(f"{about['cpu']}; {seconds} s")
    if flags.json:
        entry = {"machine": about, "seconds": seconds, "tasks": found}
        flags.json.write_text(f"{json.dumps(entry, indent=1)}\n", encoding="utf-8")


def measure(flags: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Measures the tasks of --last.

    Returns:
        By task and way, the test accuracy of every seed, 0 to 1.
    """
    import keras

    import packnet_tf
    from packnet_tf.apps.packs.base import BASE_IMAGES, adopt

    keras.utils.set_random_seed(0)
    tasks = flags.tasks.split(",")
    trunk, files, pipeline = prepared(flags, tasks[0])
    net = packnet_tf.PackNet(trunk, restart="zero")
    note("base", "adopting the trunk")
    adopt(net, "base", pipeline.evaluation(files["train"][:BASE_IMAGES]), 0.7, 2)
    signs = {}
    for task in tasks:
        note(task, "packing it")
        _, files, pipeline = prepared(flags, task)
        model = learn(net, task, "base", files["train"], pipeline, flags)
        signs[task] = directions(net, model, task, pipeline.evaluation(files["train"]))
        note(task, f"{tested(model, pipeline.evaluation(files['test'])):.1%}")
    found: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        net.save(f"{folder}/pack.keras")
        for task in flags.last.split(","):
            _, files, pipeline = prepared(flags, task)
            found[task] = {way: [] for way in WAYS}
            for seed in range(flags.seeds):
                for way in WAYS:
                    keras.utils.set_random_seed(seed)
                    net = packnet_tf.load(f"{folder}/pack.keras")
                    model = learn(net, task, way, files["train"], pipeline, flags, signs)
                    found[task][way].append(tested(model, pipeline.evaluation(files["test"])))
                    note(task, f"{way}, seed {seed}: {found[task][way][-1]:.1%}")
    return found


def learn(net, task: str, way: str, files, pipeline, flags, signs: Mapping | None = None):
    """Adds a task to a pack, trains, prunes, retrains and commits it; returns its model.

    Args:
        net: the pack.
        task: its name.
        way: one of `WAYS`.
        files: its training images.
        pipeline: makes batches of them.
        flags: the flags of this command.
        signs: by earlier task, the signs of its gradient, see `directions`; for the way "layers".
    """
    import packnet_tf

    still = pipeline.evaluation(files)
    reuse = "auto" if way == "base" else "all"
    model = net.add_task(task, packnet_tf.linear_head(net, still, reuse=reuse), reuse=reuse)
    data, third = pipeline.training(files, False, False), flags.epochs // 3
    cosines: list = []
    compiled(model, flags.learning_rate)
    for _ in range(third):  # the rate is the same in all ways
        model.fit(data, verbose=0)
        if way == "layers":
            cosines.append(agreement(gradients(net, model, still), signs or {}))
    if way == "layers":
        show_agreeing(net, model, cosines, task)
        model.make_train_function(force=True)
        model.make_test_function(force=True)
    train(model, data, flags.epochs - third, flags)
    net.prune(RATIO)
    train(model, data, flags.retrain_epochs, flags)
    net.commit()
    return model


def tested(model, data) -> float:
    """Returns the accuracy of a task's model, 0 to 1."""
    model.compile(metrics=["accuracy"])
    return accuracy(model, data)


def gradients(net, model, batches) -> list[np.ndarray]:
    """Returns the mean gradient of the loss by each kernel of the packed layers, as it is shown.

    Only at weights of earlier tasks that the model shows; it is 0 elsewhere.
    """
    import keras
    import tensorflow as tf

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = [weight.packed.value for weight in net.state.weights.values()]
    views = {id(layer.task_view): layer.task_view for layer in packed_layers(model)}.values()
    were = [view.frozen for view in views]

    @tf.function
    def mean(inputs, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            error = loss(labels, model(inputs, training=False))
        return tape.gradient(error, variables)

    sums, count = [np.zeros(variable.shape) for variable in variables], 0
    for view in views:  # a view in training has no gradient at earlier weights
        view.frozen = True
    for inputs, labels in batches.take(BATCHES):
        count += 1
        for total, part in zip(sums, mean(inputs, labels), strict=True):
            total += part.numpy()
    for view, was in zip(views, were, strict=True):
        view.frozen = was
    return [total / count for total in sums]


def directions(net, model, task: str, batches) -> list[np.ndarray]:
    """Returns the signs of a committed task's mean gradient at the weights it owns, else 0."""
    number = net.state.record(task).number
    return [
        np.sign(gradient) * (np.array(weight.owner) == number)
        for gradient, weight in zip(
            gradients(net, model, batches), net.state.weights.values(), strict=True
        )
    ]


def agreement(now: Sequence, signs: Mapping[str, Sequence]) -> dict[str, list[bool]]:
    """Returns, by earlier task and layer, whether the gradient points as that task's signs do."""
    return {
        task: [float((gradient * sign).sum()) > 0 for gradient, sign in zip(now, its, strict=True)]
        for task, its in signs.items()
    }


def packed_layers(model) -> list:
    """Returns the packed layers of a task's model, in the order of the packed weights."""
    import packnet_tf
    from packnet_tf.backend.keras_internals import all_layers

    return [layer for layer in all_layers(model) if isinstance(layer, packnet_tf.Packed)]


def show_agreeing(net, model, epochs: Sequence[dict[str, list[bool]]], task: str) -> None:
    """Makes each layer hide the tasks that did not agree in most epochs."""
    places = {id(weight.packed): place for place, weight in enumerate(net.state.weights.values())}
    numbers = {name: net.state.record(name).number for name in epochs[0]}
    kept, layers = dict.fromkeys(numbers, 0), packed_layers(model)
    for layer in layers:
        [weight] = layer.packed_weights.values()
        place, view = places[id(weight.packed)], layer.task_view
        dropped = set()
        for name, number in numbers.items():
            if sum(epoch[name][place] for epoch in epochs) * 2 > len(epochs):
                kept[name] += 1
            else:
                dropped.add(number)
        sees = tuple(number for number in view.sees if number not in dropped)
        layer.task_view = dataclasses.replace(view, sees=sees)
    note(task, f"layers shown, of {len(layers)}: {kept}")


def note(task: str, text: str) -> None:
    """Prints a result while others are measured."""
    print(f"{time.strftime('%H:%M:%S')} {task}: {text}", file=sys.stderr, flush=True)


def show(found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Prints the test accuracies of the tasks, and their means."""
    rows = []
    for way in WAYS:
        means = [float(np.mean(entry[way])) for entry in found.values()]
        rows.append([way, *(f"{mean:.1%}" for mean in [*means, float(np.mean(means))])])
    print(text_table(["sees", *found, "mean"], rows))


if __name__ == "__main__":
    main()
