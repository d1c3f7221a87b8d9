"""How accurate a pruned task is, by the criterion that chooses its smallest weights.

Trains a task in a whole trunk once. Then, for each ratio and criterion, prunes the same trained
weights, retrains the rest and tests. With --gradual, it instead trains anew for each of them, and
prunes after each epoch of the last two thirds before the retraining. With --base, it adopts the
trunk as a base, and gives the relative error of its features before and after the repair. The
criteria, of a weight w and its layer's input x, choose within each layer:

  magnitude  |w|, as PackNet has it
  input      |w| times the root mean square of the x that it multiplies (Wanda, Sun et al. 2024)
  gradient   the mean square of w times its gradient (Taylor, Molchanov et al. 2019)
  random
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.command import machine, trunk_parser
from benchmarks.user_trunk import BATCHES, accuracy, compiled, prepared, train
from packnet_tf.apps import cli
from packnet_tf.reporting.tables import text_table

CRITERIA = ("magnitude", "input", "gradient", "random")
OF_BASE = ("magnitude", "input")  # a base is pruned without labels


def read_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the flags; default those of the process."""
    parser = trunk_parser("saliency", __doc__)
    flag = parser.add_argument
    flag("--tasks", required=True, help="folders, separated by commas")
    flag("--base", action="store_true", help="prune the trunk as a base, on the tasks' images")
    flag("--gradual", action="store_true", help="prune during the training")
    flag("--ratios", default="0.75,0.9,0.95", help="default %(default)s")
    flag("--epochs", type=int, default=6, help="before the prune, default %(default)s")
    flag("--retrain_epochs", type=int, default=3, help="after it, default %(default)s")
    flag("--learning_rate", type=float, default=0.003,
         help="of SGD in both, decayed to a tenth, default %(default)s")  # fmt: skip
    flag("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    flags = read_flags()
    cli.start_keras()
    began, found = time.perf_counter(), {}
    way = measure_base if flags.base else measure_gradual if flags.gradual else measure
    for task in flags.tasks.split(","):
        found[task] = way(flags, task)
    show(found, of_base=flags.base)
    seconds = round(time.perf_counter() - began, 1)
    about = machine()
    print(f"{about['cpu']}; {seconds} s")
    if flags.json:
        settings = {key: value for key, value in vars(flags).items() if key not in ("data", "json")}
        settings["trunk"] = pathlib.Path(flags.trunk).name
        entry = {"settings": settings, "machine": about, "seconds": seconds, "tasks": found}
        flags.json.write_text(f"{json.dumps(entry, indent=1)}\n", encoding="utf-8")


def measure(flags: argparse.Namespace, task: str) -> dict:
    """Measures a task.

    Returns:
        A dict with `unpruned`, the test accuracy before the prune, 0 to 1; and by ratio, as text,
        and criterion, pairs of it after the prune and after the retraining.
    """
    import keras

    import packnet_tf

    keras.utils.set_random_seed(flags.seed)
    trunk, files, pipeline = prepared(flags, task, flags.seed)
    still = pipeline.evaluation(files["train"])
    test = pipeline.evaluation(files["test"])
    net = packnet_tf.PackNet(trunk)
    model = net.add_task(task, packnet_tf.linear_head(net, still))
    train(model, pipeline.training(files["train"], False, False), flags.epochs, flags)
    with tempfile.TemporaryDirectory() as folder:
        net.save(f"{folder}/trained.keras")
        found: dict = {"unpruned": accuracy(model, test)}
        for ratio in flags.ratios.split(","):
            found[ratio] = {}
            for criterion in CRITERIA:
                keras.utils.set_random_seed(flags.seed)
                net = packnet_tf.load(f"{folder}/trained.keras")
                model = net.open_model
                net.prune(float(ratio), in_turn(saliency(net, still, criterion)))
                compiled(model, flags.learning_rate)
                pruned = accuracy(model, test)
                data = pipeline.training(files["train"], False, False)
                train(model, data, flags.retrain_epochs, flags)
                found[ratio][criterion] = [pruned, accuracy(model, test)]
                text = "after the prune {:.1%}, retrained {:.1%}"
                note(task, ratio, criterion, text, found[ratio][criterion])
    return found


def measure_gradual(flags: argparse.Namespace, task: str) -> dict:
    """Measures a task that is pruned during its training, the criterion anew at every prune.

    Returns:
        A dict by ratio, as text, and criterion, of pairs of the test accuracy, 0 to 1, after the
        last prune and after the retraining.
    """
    import keras

    import packnet_tf

    trunk, files, pipeline = prepared(flags, task, flags.seed)
    still, test = pipeline.evaluation(files["train"]), pipeline.evaluation(files["test"])
    head = packnet_tf.linear_head(packnet_tf.PackNet(trunk), still)
    found: dict = {}
    for ratio in flags.ratios.split(","):
        found[ratio] = {}
        for criterion in CRITERIA:
            keras.utils.set_random_seed(flags.seed)
            net = packnet_tf.PackNet(trunk)
            model = net.add_task(task, head)

            def prune(epoch: int, logs=None, net=net, ratio=ratio, criterion=criterion) -> None:
                sparsity = sparsity_after(epoch, flags.epochs, float(ratio))
                if sparsity:
                    net.prune_to(sparsity, in_turn(saliency(net, still, criterion)))

            data = pipeline.training(files["train"], False, False)
            callback = keras.callbacks.LambdaCallback(on_epoch_end=prune)
            train(model, data, flags.epochs, flags, callback)
            pruned = accuracy(model, test)
            train(model, data, flags.retrain_epochs, flags)
            found[ratio][criterion] = [pruned, accuracy(model, test)]
            text = "after the last prune {:.1%}, retrained {:.1%}"
            note(task, ratio, criterion, text, found[ratio][criterion])
    return found


def sparsity_after(epoch: int, epochs: int, ratio: float) -> float:
    """Returns the sparsity after an epoch, from 0: cubic from the first third to the last epoch."""
    first = epochs // 3
    part = max(0, epoch + 1 - first) / (epochs - first)
    return ratio * (1 - (1 - part) ** 3)


def measure_base(flags: argparse.Namespace, task: str) -> dict:
    """Measures the adoption of the trunk on the training images of a task.

    Returns:
        A dict by ratio, as text, and criterion, of pairs of the relative error of the features
        after the prune and after the repair.
    """
    import keras

    import packnet_tf
    from packnet_tf.apps.packs.base import BASE_IMAGES

    trunk, files, pipeline = prepared(flags, task, flags.seed)
    still = pipeline.evaluation(files["train"][:BASE_IMAGES])
    whole = packnet_tf.PackNet(trunk)
    whole.add_task(task, keras.layers.Identity())
    importances = {criterion: saliency(whole, still, criterion) for criterion in OF_BASE}
    found: dict = {}
    for ratio in flags.ratios.split(","):
        found[ratio] = {}
        for criterion in OF_BASE:
            keras.utils.set_random_seed(flags.seed)
            net = packnet_tf.PackNet(trunk, restart="zero")
            adoption = net.adopt(
                "base",
                packnet_tf.erk_ratios(net, float(ratio)),
                images=still.map(lambda images, labels: images),
                criterion=in_turn(importances[criterion]),
                verbose=0,
            )
            errors = [adoption.error_pruned, adoption.error_repaired]
            found[ratio][criterion] = errors
            note(task, ratio, criterion, "error after the prune {:.4f}, repaired {:.4f}", errors)
    return found


def note(task: str, ratio: str, criterion: str, text: str, pair: list[float]) -> None:
    """Prints the result of one prune while the others are measured."""
    print(f"{task}, {ratio}, {criterion}: {text.format(*pair)}", file=sys.stderr, flush=True)


def saliency(net, data, criterion: str) -> list[np.ndarray]:
    """Returns the importance of every weight that the open task trains, an array per layer.

    Args:
        net: a pack with an open task.
        data: batches of (inputs, integer labels).
        criterion: one of `CRITERIA`.
    """
    weights = list(net.state.weights.values())
    values = [np.array(weight.trainable) for weight in weights]
    if criterion == "magnitude":
        return [np.abs(value) for value in values]
    if criterion == "random":
        random = np.random.default_rng(0)
        return [random.random(value.shape) for value in values]
    batches = data.take(BATCHES)
    if criterion == "gradient":
        squares = squared_gradients(net.open_model, weights, batches)
        return [value**2 * square for value, square in zip(values, squares, strict=True)]
    scales = root_mean_squares(net.open_model, weights, batches)
    return [np.abs(value) * scale for value, scale in zip(values, scales, strict=True)]


def squared_gradients(model, weights: list, batches) -> list[np.ndarray]:
    """Returns the mean over batches of the squared gradient of each kernel."""
    import keras
    import tensorflow as tf

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = [weight.trainable.value for weight in weights]

    @tf.function
    def squares(inputs, labels):
        with tf.GradientTape() as tape:
            error = loss(labels, model(inputs, training=False))
        return [tf.square(gradient) for gradient in tape.gradient(error, variables)]

    sums = [np.zeros(variable.shape) for variable in variables]
    for inputs, labels in batches:
        for total, square in zip(sums, squares(inputs, labels), strict=True):
            total += square.numpy()
    return [total / len(batches) for total in sums]


def root_mean_squares(model, weights: list, batches) -> list[np.ndarray]:
    """Returns, per kernel, the root mean square of its inputs, an array that multiplies with it."""
    from packnet_tf.backend.keras_internals import all_layers

    layers = {
        id(variable): layer
        for layer in all_layers(model)
        for variable in layer.weights
        if hasattr(layer, "packed_kernel")
    }
    sums = [np.zeros(1)] * len(weights)

    def noting(place: int, call: Callable):
        def noted(inputs, *args, **kwargs):
            values = np.asarray(inputs, np.float64)
            sums[place] = sums[place] + np.square(values).mean(axis=tuple(range(values.ndim - 1)))
            return call(inputs, *args, **kwargs)

        return noted

    watched = [layers[id(weight.trainable)] for weight in weights]
    for place, layer in enumerate(watched):
        layer.call = noting(place, layer.call)
    for inputs, _ in batches:
        model(inputs, training=False)
    for layer in watched:
        del layer.call  # that of its class again
    # Input channels are the last axis but one of a kernel, dense, convolutional or depthwise.
    return [np.sqrt(total / len(batches))[:, np.newaxis] for total in sums]


def in_turn(importance: list[np.ndarray]) -> Callable:
    """Returns a criterion for one prune, which gets the layers in the order of `importance`."""
    layers = iter(importance)

    def least(weights: np.ndarray, claim: np.ndarray, ratio: float) -> np.ndarray:
        import packnet_tf

        return packnet_tf.magnitude(next(layers), claim, ratio)

    return least


def show(found: dict, of_base: bool) -> None:
    """Prints the results of the tasks, and their means.

    Args:
        found: as `measure`, `measure_gradual` or `measure_base` return them, by task.
        of_base: whether they are errors of features, and not accuracies.
    """
    first = next(iter(found.values()))
    whole = [entry["unpruned"] for entry in found.values() if "unpruned" in entry]
    text = "{:.4f} ({:.4f})" if of_base else "{:.1%} ({:.1%})"
    rows = []
    for ratio in (key for key in first if key != "unpruned"):
        for criterion in first[ratio]:
            pairs = np.array([entry[ratio][criterion] for entry in found.values()])
            pairs = np.vstack([pairs, pairs.mean(axis=0)])
            rows.append([ratio, criterion, *(text.format(after, at) for at, after in pairs)])
    if whole:
        rows.append(["none", "", *(f"{value:.1%}" for value in [*whole, float(np.mean(whole))])])
    what, then = ("error of features", "repaired") if of_base else ("test accuracy", "retrained")
    print(f"{what}, {then} (and right after the prune)")
    print(text_table(["ratio", "criterion", *found, "mean"], rows))


if __name__ == "__main__":
    main()
