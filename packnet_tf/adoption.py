"""A pretrained trunk as the first task, without the data it was trained on.

Pruning damages the trunk. The repair needs no labels: on any images, the pruned trunk learns to
compute what the unpruned one does, layer by layer.
"""

import dataclasses
import math
import numbers

import keras
import numpy as np
from keras import ops, tree

from packnet_tf import cloning
from packnet_tf.checks import has_graph
from packnet_tf.layers import Packed
from packnet_tf.pruning import check_ratio
from packnet_tf.tables import text_table


@dataclasses.dataclass(frozen=True)
class Adoption:
    """What adopting a trunk did; prints as a table.

    Attributes:
        name: the task.
        released: share of the packed weights that the prune released, 0 to 1.
        epochs: epochs of repair.
        error_pruned: relative error of the features on the images, after the prune: the mean
            squared difference from the unpruned trunk's, divided by the variance of those; None
            without images.
        error_repaired: the same after the repair.
    """

    name: str
    released: float
    epochs: int
    error_pruned: float | None
    error_repaired: float | None

    def __str__(self) -> str:
        def show(error):
            return "not measured" if error is None else f"{error:.4g}"

        rows = [
            ["released", f"{self.released:.1%}"],
            ["feature error after the prune", show(self.error_pruned)],
            ["epochs of repair", str(self.epochs)],
            ["feature error after the repair", show(self.error_repaired)],
        ]
        return text_table([f"task {self.name}, adopted", ""], rows)


def adopt(
    net, name, prune_ratio, head, images, epochs, learning_rate, classes, criterion, verbose
) -> Adoption:
    """Does what `PackNet.adopt` says."""
    net.check_name(name)
    check_first(name, net.tasks)
    prune_ratio = check_ratio(prune_ratio)
    check_settings(epochs, learning_rate)
    given = keras.layers.Identity(name="features") if head is None else head
    model = net.add_task(name, given, classes)
    try:
        check_has_values(name, given, model.head)
        teacher = None if images is None else cloning.plain_trunk(net._trunk, model.trunk)
        released = sum(net.prune(prune_ratio, criterion).values())
        before = after = None
        if teacher is not None:
            before, after = repair(
                model.trunk, teacher, images, epochs, learning_rate, verbose=verbose
            )
            check_repaired(name, before, after, learning_rate)
        net.commit()
    except BaseException:
        net.discard()
        raise
    share = released / net.capacity().sum()["total"]
    return Adoption(name, share, epochs if before else 0, before, after)


def repair(student, teacher, images, epochs, learning_rate, layerwise=True, verbose=0):
    """Trains a pruned trunk to compute what another one of its structure does.

    Both run in inference mode: moving statistics stay those of the data the trunk was trained on.

    Args:
        student: the trunk to train, a `PackedTrunk`.
        teacher: a plain trunk of the same structure.
        images: what `fit` can go over several times; labels in it are not looked at.
        epochs: passes over the images, at a rate that falls along half a cosine.
        learning_rate: Adam's, in the first epoch.
        layerwise: whether what every packed layer takes in is matched too, or the features alone.
        verbose: as for `fit`.

    Returns:
        The relative error of the features before and after.

    Raises:
        ValueError: the unpruned trunk's features are the same for all images, or NaN.
    """
    matching = Matching(student, teacher, layerwise)
    try:
        before = matching.measure(images)
        if before == 0.0 or epochs == 0:  # nothing is damaged, or to be repaired
            return before, before
        matching.compile(keras.optimizers.Adam(learning_rate), jit_compile=_jit_compile())
        matching.fit(
            images,
            epochs=epochs,
            verbose=verbose,
            shuffle=not hasattr(images, "element_spec"),  # tf.data shuffles itself, or Keras warns
            callbacks=[keras.callbacks.LearningRateScheduler(cosine(learning_rate, epochs))],
        )
        return before, matching.measure(images)
    finally:
        if keras.backend.backend() == "jax":  # where it stops half way, variables are empty
            matching.jax_state_sync()


def cosine(rate: float, epochs: int):
    """A schedule for `LearningRateScheduler`: from `rate` towards 0, along half a cosine."""
    return lambda epoch, _: rate * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Matching(keras.Model):
    """Measures and trains how well one trunk computes what another one does.

    Its outputs are moments, (batch, places, 3): per example and place, the means of the squared
    difference, of the teacher's values and of their squares. The places are what every packed
    layer takes in, where that is asked for, and at the end the features.

    Args:
        student, teacher, layerwise: see `repair`.
    """

    def __init__(self, student, teacher, layerwise: bool = True):
        super().__init__(dtype=student.dtype_policy, autocast=False)
        teacher.trainable = False
        wanted = _holders(student, teacher) if layerwise else set()
        self.student, self.teacher = tapped(student, wanted), tapped(teacher, wanted)
        self.features = len(tree.flatten(student.output))
        places = len(tree.flatten(self.student.output))
        self.scales = self.add_weight(
            shape=(places,), initializer="zeros", trainable=False, autocast=False, name="scales"
        )

    def call(self, inputs, training=None):
        ours = tree.flatten(self.student(inputs, training=False))
        theirs = tree.flatten(self.teacher(inputs, training=False))
        return ops.stack([_moments(*pair) for pair in zip(ours, theirs, strict=True)], axis=1)

    def measure(self, images) -> float:
        """The relative error of the features; sets the scales that errors are trained with.

        Raises:
            ValueError: the teacher's features are the same for all images, or NaN.
        """
        error, mean, square = self.predict(images, verbose=0).astype("float64").mean(axis=0).T
        variance = square - mean**2
        last = slice(-self.features, None)
        if not np.all((variance[last] > 0) & np.isfinite(variance[last])):
            raise ValueError(
                "Cannot match the trunk's features: on these images they are all the same, NaN or "
                "infinite. Give real images, with the pixel values that the trunk takes."
            )
        # Where nothing is damaged, or the teacher shows nothing, nothing is to be learned.
        useful = (error > 0) & (variance > 0)
        scales = np.divide(1.0, variance, out=np.zeros_like(variance), where=useful)
        self.scales.assign(scales / max(1, np.count_nonzero(useful)))
        return float(np.mean(error[last] / variance[last]))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.sum(y_pred[:, :, 0] * self.scales, axis=1))


def tapped(model, wanted: set[int]) -> keras.Model:
    """A model of the same layers that also gives what some of them take in.

    Args:
        model: a functional model.
        wanted: the `id` of every layer to tap; models that hold such a layer count as well, and
            are looked into.

    Returns:
        A model whose output is a list of what was tapped, of floating point, and the outputs.
    """
    taps = {}

    def call(layer, *args, **kwargs):
        if id(layer) not in wanted:
            return layer(*args, **kwargs)
        found = [x for x in tree.flatten(args) if _is_float(x)]
        if isinstance(layer, keras.Model) and has_graph(layer):
            *inside, output = tapped(layer, wanted)(*args, **kwargs)
            found += tree.flatten(inside)
        else:
            output = layer(*args, **kwargs)
        taps.update((id(x), x) for x in found)
        return output

    if isinstance(model, keras.Sequential):  # within a trunk
        model = keras.Model(model.inputs[0], model.outputs[0])
    copy = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    for x in tree.flatten(copy.input):  # what comes in is not to go out again
        taps.pop(id(x), None)
    return keras.Model(copy.input, [*taps.values(), copy.output])


def check_first(name: str, tasks) -> None:
    """Refuses to adopt a trunk that holds tasks.

    Raises:
        RuntimeError: it does.
    """
    if tasks:
        raise RuntimeError(
            f"Cannot adopt task '{name}': a pretrained trunk is adopted as the first task, and the "
            f"pack has {', '.join(map(repr, tasks))}. Make a new pack, net = packnet_tf.PackNet("
            f"trunk), call net.adopt('{name}', prune_ratio), then add the others."
        )


def check_settings(epochs: int, learning_rate: float) -> None:
    """Refuses epochs and rates that are none.

    Raises:
        ValueError: the message says which.
    """
    whole = isinstance(epochs, numbers.Integral) and not isinstance(epochs, bool)
    if not whole or epochs < 0:
        raise ValueError(
            f"epochs is how often the repair goes over the images, a whole number; got {epochs!r}. "
            "Write epochs=5, or epochs=0 to measure the damage and not repair it."
        )
    rate = float(learning_rate) if isinstance(learning_rate, numbers.Real) else math.nan
    if not 0 < rate < math.inf:
        raise ValueError(
            f"learning_rate is that of the repair's first epoch, a number above 0; got "
            f"{learning_rate!r}. Write learning_rate=0.0003."
        )


def check_has_values(name: str, head, own) -> None:
    """Refuses a head that has yet to be trained: adopting does not.

    Args:
        name: of the task.
        head: as given.
        own: its copy in the task's model.

    Raises:
        ValueError: it has weights, and they were never built.
    """
    if own.weights and not head.built:
        raise ValueError(
            f"Cannot adopt task '{name}': its head is not built, so its weights would be random, "
            "and adopting trains no head. Give the head that the trunk was trained with, or leave "
            "it out: the task then answers with the trunk's features."
        )


def check_repaired(name: str, before: float, after: float, learning_rate: float) -> None:
    """Refuses a repair that made it worse, NaN included.

    Raises:
        ValueError: it did.
    """
    if not after <= before:
        raise ValueError(
            f"Cannot adopt task '{name}': the repair made the features worse, from a relative "
            f"error of {before:.4g} to {after:.4g}. Give a learning_rate below {learning_rate:g}, "
            "or leave the images out to prune without repair."
        )


def _holders(student, teacher) -> set[int]:
    """The `id` of every layer of the two that is packed in the student, or holds such layers."""
    wanted = set()
    pairs = zip(student._flatten_layers(), teacher._flatten_layers(), strict=True)
    for ours, theirs in pairs:
        if any(isinstance(part, Packed) for part in ours._flatten_layers()):
            wanted |= {id(ours), id(theirs)}
    return wanted


def _is_float(x) -> bool:
    return isinstance(x, keras.KerasTensor) and "float" in x.dtype


def _moments(ours, theirs):
    """Means of (ours - theirs)^2, theirs and theirs^2 per example: (batch, 3)."""
    ours, theirs = (ops.cast(x, "float32") for x in (ours, theirs))
    axes = tuple(range(1, len(theirs.shape)))
    parts = (ops.square(ours - theirs), theirs, ops.square(theirs))
    return ops.stack([ops.mean(part, axis=axes) for part in parts], axis=1)


def _jit_compile():
    """TensorFlow's XLA makes convolutions slower on CPUs; JAX is nothing without it."""
    accelerated = any(not d.startswith("cpu") for d in keras.distribution.list_devices())
    return "auto" if accelerated or keras.backend.backend() != "tensorflow" else False
