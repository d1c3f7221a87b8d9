"""Fits a linear classifier on the trunk's features, as the initial head of a task.

A random head changes the trunk before the head has learnt anything. Fitting the head first, on
features that are computed once, takes seconds. The task then starts from the accuracy of a frozen
trunk: linear probing, then fine-tuning.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from packnet_tf.backend.distribution import strategy_of
from packnet_tf.backend.types import AnyData, Tensor, Tensors
from packnet_tf.normalization.following import moves_statistics
from packnet_tf.training.class_weights import (
    ClassWeight,
    check_class_weight,
    classes_of,
    weights_by_class,
    weights_of,
)

if TYPE_CHECKING:
    from packnet_tf.net import PackNet

FEATURE_NORM = 30.0  # mean squared norm to which features are scaled
MOST_IMAGES = 20_000  # most examples to fit a head on; more change it little
# The least deviations by which features are divided. A head amplifies what is below them: rounding,
# or a feature that few examples activate, which more will once the trunk trains.
LEAST_OF_MEAN = 1e-3  # of the feature's own mean
LEAST_OF_TYPICAL = 0.1  # of the root mean square of all features' deviations
STRENGTH = 0.01  # inverse regularisation strength on standardised features, scikit-learn's C


def linear_head(
    net: "PackNet",
    data: AnyData,
    classes: int | None = None,
    statistics: str = "task",
    reuse: str | Sequence[str] = "all",
    class_weight: ClassWeight = None,
    overlay: float | None = None,
) -> keras.Model:
    """Fits a linear head for the next task of a pack.

    It is a logistic regression on the features with which the task starts. If the task will train
    the trunk's normalisation, the features are normalised by batch statistics, as in training.

    Args:
        net: the pack; it does not change.
        data: batches of (inputs, labels) or (inputs, labels, sample_weight), for instance a
            `tf.data.Dataset` or a `PyDataset`, shuffled and not augmented; or a tuple of two or
            three such arrays. Labels are integers from 0, of any dtype, or one-hot. Examples of
            weight 0 do not count.
        classes: number of outputs; default: the width of one-hot labels, or one more than the
            largest label.
        statistics: the argument that `net.add_task` will get.
        reuse: the same.
        overlay: the same.
        class_weight: as for `Task`.

    Returns:
        A built `keras.Sequential`, from features (n,) to logits (classes,), for `net.add_task`.

    Raises:
        ValueError: the trunk does not return one feature vector per example, the features are not
            finite, the labels are no classes from 0 to `classes - 1`, there are no data, weights
            are invalid, or `net.add_task` would refuse the arguments.
        ImportError: scikit-learn is not installed.

    Example:
        >>> head = packnet_tf.linear_head(net, (images, labels))
        >>> model = net.add_task("birds", head)

    Source: Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022.
    """
    check_class_weight(class_weight, classes)  # before the features, which take time
    # A list of tuples is one of batches.
    if isinstance(data, tuple) or (
        isinstance(data, list) and data and not isinstance(data[0], tuple)
    ):
        data = _batches([part for part in data if part is not None])
    examples = collect(next_features(net, statistics, reuse, overlay is None), data)
    return fitted_head(examples, classes or examples.classes, class_weight)


def next_features(
    net: "PackNet",
    statistics: str = "task",
    reuse: str | Sequence[str] = "all",
    free: bool = True,
) -> Callable[[Tensors], Tensor]:
    """Returns a function from inputs to the features on which the next task trains.

    Args:
        net: the pack.
        statistics, reuse, free: as for `PackNet.preview`.
    """
    trunk = net.preview(statistics, reuse, free)
    training = moves_statistics(trunk)
    if keras.backend.backend() == "tensorflow" and strategy_of(net) is None:
        return TracedFeatures(trunk, training).predict_on_batch  # several times as fast
    return as_in_training(trunk) if training else lambda inputs: trunk(inputs, training=False)


class TracedFeatures(keras.Model):
    """Computes a trunk's features with `predict`, in training or inference mode.

    In training mode it updates the view's moving statistics.

    Args:
        trunk: a view of a trunk.
        training: whether to normalise by batch statistics.
    """

    def __init__(self, trunk: keras.Model, training: bool) -> None:
        super().__init__(autocast=False)
        self.trunk, self.training_mode = trunk, training

    def call(self, inputs: Tensors) -> Tensor:
        return self.trunk(inputs, training=self.training_mode)


def as_in_training(trunk: keras.Model) -> Callable[[Tensors], Tensor]:
    """Returns a function from images to a trunk's features in training mode.

    In training mode, batch normalisation uses batch statistics. The moving statistics with which a
    later task starts are the trunk's, which do not fit the weights that the task sees: the features
    would come out several times too large. The function does not update the moving statistics.

    Args:
        trunk: a functional model; its features are a float tensor (batch, width).
    """

    def features(images: Tensors) -> Tensor:
        with keras.StatelessScope():  # discards updates of moving statistics
            return trunk(images, training=True)

    return features


class Examples(NamedTuple):
    """What a linear head is fitted on.

    Attributes:
        features: float32 array (n, width).
        labels: integer array (n,).
        classes: width of one-hot labels; one more than the largest of others.
        weights: float array (n,), above 0; None: all weigh the same.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: int
    weights: np.ndarray | None = None


def collect(features_of: Callable[[Tensors], Tensor], data: Iterable) -> Examples:
    """Computes the features of at most `MOST_IMAGES` examples.

    Args:
        features_of: function from a batch of inputs to a float tensor (batch, width).
        data: batches of inputs, labels (batch,) or (batch, 1), or one-hot (batch, classes), and
            optionally weights (batch,). Examples of weight 0 are left out.

    Raises:
        ValueError: the labels are no classes, the weights are none, or there are no batches.
    """
    features, labels, weights, count, classes = [], [], [], 0, 0
    if isinstance(data, keras.utils.PyDataset):  # iterating over it might never end
        numbers = itertools.count() if data.num_batches is None else range(data.num_batches)
        data = map(data.__getitem__, numbers)
    for x, y, *more in data:
        every = np.asarray(keras.ops.convert_to_numpy(features_of(x)), "float32")
        weight = _weights(more[0] if more else None, len(every))
        counts = weight > 0
        found, width = _classes(y if counts.all() else np.asarray(y)[counts])
        features.append(every[counts])
        labels.append(found)
        weights.append(weight[counts])
        count, classes = count + len(found), max(classes, width)
        if count >= MOST_IMAGES:
            break
    if labels and not count:
        raise ValueError(
            "All examples to fit a linear head on have the weight 0, so none counts. Give "
            "those that are to count a weight above 0."
        )
    if not labels:
        raise ValueError(
            "The data to fit a linear head on have no batches. A generator is used up after one "
            "pass: give a dataset that begins again, or arrays (x, y)."
        )
    every = np.concatenate(weights)
    some = every if np.any(every != 1) else None
    return Examples(np.concatenate(features), np.concatenate(labels), classes, some)


def _weights(given: Any, count: int) -> np.ndarray:
    """Returns the weights of a batch's examples, float32 (count,); 1 if there are none."""
    if given is None:
        return np.ones(count, "float32")
    weights = None if keras.tree.is_nested(given) else np.asarray(given, "float32")
    if weights is not None and weights.shape == (count, 1):
        weights = weights[:, 0]
    if weights is None or weights.shape != (count,):
        shape = "several outputs" if weights is None else f"shape {weights.shape}"
        raise ValueError(
            f"A linear head takes one sample weight per example, {count} in this batch; got "
            f"weights of {shape}. Begin with a new head, keras.layers.Dense(outputs)."
        )
    if not (np.isfinite(weights).all() and weights.min(initial=0.0) >= 0):
        raise ValueError(
            "A linear head takes sample weights that are finite and not below 0; got weights from "
            f"{weights.min()} to {weights.max()}. Give examples that are not to count the weight 0."
        )
    return weights


def _classes(labels: Any) -> tuple[np.ndarray, int]:
    """Returns the classes of a batch of labels, floats or one-hot, and the number of classes."""
    shape, expected = "", "one class per example: integers from 0, or one-hot"
    if not keras.tree.is_nested(labels):
        values = np.asarray(labels)
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        if values.dtype.kind in "biuf":
            if values.ndim == 2 and np.isin(values, (0, 1)).all() and (values.sum(-1) == 1).all():
                return values.argmax(-1), values.shape[1]
            if values.ndim == 1 and (values == np.round(values)).all():
                return values.astype("int64"), int(values.max(initial=-1)) + 1
        shape = f" of shape {values.shape} and dtype {values.dtype}"
    raise ValueError(
        f"A linear head is for tasks with {expected}; got other labels{shape}. Begin with a new "
        "head, keras.layers.Dense(outputs)."
    )


def fitted_head(examples: Examples, classes: int, class_weight: ClassWeight = None) -> keras.Model:
    """Fits the head that `linear_head` returns.

    Args:
        examples: features and labels.
        classes, class_weight: as for `linear_head`.

    Raises:
        ValueError: the features are not finite or not vectors, or labels or `class_weight` do not
            fit the classes.
    """
    features, labels, weights = examples.features, examples.labels, examples.weights
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"A linear head takes one vector of finite features for each example; got features of "
            f"shape {features.shape}. Let the trunk end in a pooling layer, and check that its "
            "inputs have the pixel values it was trained with."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"The labels of {classes} classes are 0 to {classes - 1}; these are {labels.min()} to "
            f"{labels.max()}. Count classes from 0."
        )
    check_class_weight(class_weight, classes)
    head = scaled_head(features, classes)
    scale = head.layers[0].scale
    kernel, bias = fit_linear(features * scale, labels, classes, class_weight, weights)
    head.layers[-1].set_weights([kernel, bias])
    return head


def scaled_head(features: np.ndarray, classes: int, **dense: Any) -> keras.Model:
    """Creates a linear head that scales features to a mean squared norm of `FEATURE_NORM`.

    Backbones differ a lot in the size of their features. A step of a linear layer changes its
    outputs by the learning rate times the squared norm, so large features make it unstable at
    learning rates that train the trunk.

    Args:
        features: float array (n, width).
        classes: number of outputs.
        dense: further arguments of the `Dense` layer.
    """
    norm = float(np.mean(np.sum(np.square(features), axis=-1)))
    scale = math.sqrt(FEATURE_NORM / norm) if norm > 0 else 1.0
    return keras.Sequential(
        [
            keras.Input((features.shape[-1],)),
            keras.layers.Rescaling(scale),
            keras.layers.Dense(classes, **dense),
        ],
        name="head",
    )


def fit_linear(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    class_weight: ClassWeight = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a logistic regression.

    Args:
        features: float array (n, width).
        labels: integer array (n,), from 0.
        classes: number of classes; a class without examples gets the lowest bias.
        class_weight: as for `linear_head`.
        weights: float array (n,), by which those of the classes are multiplied; None: all 1.

    Returns:
        Kernel (width, classes) and bias (classes,), float32 arrays.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "A linear head is fitted by scikit-learn, which is not installed. Write pip install "
            "'packnet_tf[apps]', or begin with a new head, keras.layers.Dense(classes)."
        ) from error
    mean, deviation = features.mean(0), features.std(0)
    least = LEAST_OF_TYPICAL * math.sqrt(np.mean(np.square(deviation)))
    deviation = np.maximum(deviation, np.maximum(LEAST_OF_MEAN * np.abs(mean), least))
    deviation = np.where(deviation > 0, deviation, 1.0)
    present = np.unique(labels)
    kernel, bias = np.zeros((features.shape[1], classes)), np.zeros(classes)
    if len(present) > 1:
        fit = LogisticRegression(C=STRENGTH, max_iter=1000)
        by_class = weights_by_class(class_weight, [labels])
        if by_class is not None:
            of_class = keras.ops.convert_to_numpy(weights_of(classes_of(labels), by_class))
            weights = of_class if weights is None else weights * of_class
        fit.fit((features - mean) / deviation, labels, sample_weight=weights)
        slope, offset = fit.coef_, fit.intercept_
        if len(present) == 2:  # scikit-learn fits one logit; split it over two outputs
            slope, offset = np.stack([-slope[0], slope[0]]) / 2, np.array([-1, 1]) * offset / 2
        kernel[:, present] = slope.T / deviation[:, None]
        bias[present] = offset - slope @ (mean / deviation)
    bias[~np.isin(np.arange(classes), present)] = bias[present].min() - 1.0
    return kernel.astype("float32"), bias.astype("float32")


def linear_accuracy(head: keras.Model, examples: Examples) -> float:
    """Computes the accuracy of a head on features, 0 to 1.

    Args:
        head: model from features to logits (n, classes).
        examples: features and labels.
    """
    logits = keras.ops.convert_to_numpy(head(examples.features))
    return float(np.mean(logits.argmax(-1) == examples.labels))


def _batches(arrays: Sequence) -> Iterator[tuple]:
    """Returns shuffled batches of 32 examples of arrays (x, y) or (x, y, sample_weight)."""
    if len(arrays) not in (2, 3):
        raise ValueError(
            "A linear head is fitted on batches, or on arrays (x, y) or (x, y, sample_weight); "
            f"got {len(arrays)} of them. Write linear_head(net, (x, y))."
        )
    order = np.random.default_rng(0).permutation(len(arrays[1]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        yield keras.tree.map_structure(
            lambda array, rows=rows: np.asarray(array)[rows], tuple(arrays)
        )
