"""Feature matching: trains one trunk to reproduce another one's features on any images."""

import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops, tree

from packnet_tf.backend.distribution import has_accelerator
from packnet_tf.backend.keras_internals import all_layers, has_graph
from packnet_tf.backend.types import AnyData, Tensor, Tensors
from packnet_tf.packing.layers import Packed
from packnet_tf.packing.trunk import PackedTrunk


def match(
    student: PackedTrunk,
    teacher: keras.Model,
    images: AnyData,
    epochs: int,
    learning_rate: float | None,
    layerwise: bool = True,
    verbose: int | str = 0,
) -> tuple[float, float]:
    """Trains a pruned trunk to reproduce the features of the unpruned one.

    Both run in inference mode, so moving statistics do not change.

    Args:
        student: the trunk to train.
        teacher: a plain trunk of the same structure.
        images: data that `fit` accepts and can iterate repeatedly; labels are ignored.
        epochs: passes over the images; the learning rate decays along half a cosine.
        learning_rate: Adam's initial learning rate; None: `rate_for_damage`.
        layerwise: whether to match the inputs of every packed layer too, not only the features.
        verbose: as for `fit`.

    Returns:
        The relative error of the features before and after the training.

    Raises:
        ValueError: the teacher's features are the same for all images, NaN or infinite.
    """
    matching = Matching(student, teacher, layerwise)
    # Compile first: compiling discards traced functions.
    matching.compile(keras.optimizers.Adam(), jit_compile=_jit_compile())
    try:
        before = matching.measure(images)
        if before == 0.0 or epochs == 0:  # no damage, or no repair wanted
            return before, before
        rate = rate_for_damage(before) if learning_rate is None else learning_rate
        matching.fit(
            images,
            epochs=epochs,
            verbose=verbose,
            shuffle=not hasattr(
                images, "element_spec"
            ),  # Keras warns about shuffling a tf.data.Dataset
            callbacks=[keras.callbacks.LearningRateScheduler(cosine(rate, epochs))],
        )
        return before, matching.measure(images)
    finally:
        if keras.backend.backend() == "jax":  # an interrupted fit leaves variables without values
            matching.jax_state_sync()


def rate_for_damage(error: float) -> float:
    """Returns Adam's learning rate for a repair; it is lower for little damage.

    Args:
        error: relative error of the features before the repair.

    Example:
        >>> rate_for_damage(0.5), round(rate_for_damage(0.01), 6)
        (0.0003, 3e-05)
    """
    return 3e-4 * min(1.0, error / 0.1)


def cosine(rate: float, epochs: int) -> Callable[[int, float], float]:
    """Returns a schedule for `LearningRateScheduler` from `rate` to 0 along half a cosine."""
    return lambda epoch, _: rate * (1 + math.cos(math.pi * epoch / epochs)) / 2


class Matching(keras.Model):
    """Measures and trains how well one trunk reproduces another.

    The outputs have shape (batch, places, 3): for every example and place, the means of the squared
    difference, of the teacher's values and of their squares. The places are the inputs of the
    packed layers, if `layerwise`, and then the features.

    Args:
        student, teacher, layerwise: as for `match`.
    """

    def __init__(self, student: PackedTrunk, teacher: keras.Model, layerwise: bool = True) -> None:
        super().__init__(dtype=student.dtype_policy, autocast=False)
        teacher.trainable = False
        wanted = _packed_and_containers(student, teacher) if layerwise else set()
        self.student, self.teacher = tapped(student, wanted), tapped(teacher, wanted)
        self.features = len(tree.flatten(student.output))
        places = len(tree.flatten(self.student.output))
        self.scales = self.add_weight(
            shape=(places,), initializer="zeros", trainable=False, autocast=False, name="scales"
        )

    def call(self, inputs: Tensors, training: bool | None = None) -> Tensor:
        ours = tree.flatten(self.student(inputs, training=False))
        theirs = tree.flatten(self.teacher(inputs, training=False))
        batch = ops.shape(theirs[-1])[0]
        found = [_moments(*pair, batch) for pair in zip(ours, theirs, strict=True)]
        return ops.stack(found, axis=1)

    def measure(self, images: AnyData) -> float:
        """Measures the relative error of the features, and sets the scales of the loss.

        Args:
            images: as for `match`.

        Raises:
            ValueError: the teacher's features are the same for all images, NaN or infinite.
        """
        error, mean, square = self.predict(images, verbose=0).astype("float64").mean(axis=0).T
        variance = square - mean**2
        last = slice(-self.features, None)
        if not np.all((variance[last] > 0) & np.isfinite(variance[last])):
            raise ValueError(
                "Cannot match the trunk's features: on these images they are all the same, NaN or "
                "infinite. Give real images, with the pixel values that the trunk takes."
            )
        # Places without error, or where the teacher's values are constant, get no weight.
        useful = (error > 0) & (variance > 0)
        scales = np.divide(1.0, variance, out=np.zeros_like(variance), where=useful)
        self.scales.assign(scales / max(1, np.count_nonzero(useful)))
        return float(np.mean(error[last] / variance[last]))

    def compute_loss(
        self,
        x: Tensors = None,
        y: Tensors = None,
        y_pred: Tensor = None,
        sample_weight: Tensors = None,
        training: bool = True,
    ) -> Tensor:
        return ops.mean(ops.sum(y_pred[:, :, 0] * self.scales, axis=1))


def tapped(model: keras.Model, wanted: set[int]) -> keras.Model:
    """Rebuilds a model so that it also returns the inputs of some layers.

    Args:
        model: a functional model.
        wanted: the `id` of every layer to tap, and of the models that contain such layers.

    Returns:
        A model of the same layers. Its output is a list: the tapped floating-point tensors, then
        the outputs.
    """
    taps: dict[int, keras.KerasTensor] = {}

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Tensors:
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

    if isinstance(model, keras.Sequential):  # nested in a trunk
        model = keras.Model(model.inputs[0], model.outputs[0])
    copy = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    for x in tree.flatten(copy.input):  # do not return the model's own inputs
        taps.pop(id(x), None)
    return keras.Model(copy.input, [*taps.values(), copy.output])


def _packed_and_containers(student: PackedTrunk, teacher: keras.Model) -> set[int]:
    """Returns the `id` of packed layers and their containers, in both trunks."""
    wanted = set()
    pairs = zip(all_layers(student), all_layers(teacher), strict=True)
    for ours, theirs in pairs:
        if any(isinstance(part, Packed) for part in all_layers(ours)):
            wanted |= {id(ours), id(theirs)}
    return wanted


def _is_float(x: object) -> bool:
    return isinstance(x, keras.KerasTensor) and "float" in x.dtype


def _moments(ours: Tensor, theirs: Tensor, batch: int | Tensor) -> Tensor:
    """Returns per-example means of (ours - theirs)^2, theirs and theirs^2: (batch, 3).

    A trunk may fold windows or frames into the batch, so that an example has several rows.
    """
    ours, theirs = (ops.cast(x, "float32") for x in (ours, theirs))
    axes = tuple(range(1, len(theirs.shape)))
    parts = (ops.square(ours - theirs), theirs, ops.square(theirs))
    means = ops.stack([ops.mean(part, axis=axes) for part in parts], axis=1)
    return ops.mean(ops.reshape(means, (batch, -1, len(parts))), axis=1)


def _jit_compile() -> Literal["auto", False]:
    """Returns `jit_compile`: XLA slows TensorFlow on CPUs; JAX always compiles."""
    return "auto" if has_accelerator() or keras.backend.backend() != "tensorflow" else False
