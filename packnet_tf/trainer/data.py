"""Training data, one pass per epoch, in an order that a resumed run repeats."""

from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from packnet_tf.backend.datasets import check_ends, known_batches
from packnet_tf.backend.py_datasets import PyDatasetPasses
from packnet_tf.backend.types import AnyData, Tensors
from packnet_tf.training.class_weights import (
    SEVERAL,
    ClassWeight,
    classes_of,
    is_one_class,
    weights_by_class,
    weights_of,
)

_WHAT = "The data of a task"


class TrainingData:
    """Iterates over a task's training data, epoch by epoch.

    A seeded dataset samples new random numbers for every iterator. A run that resumes in epoch 7
    therefore first creates the iterators of epochs 0 to 6, without reading from them. Its order and
    augmentation are then those of an uninterrupted run.

    Args:
        source: as for `Task.train`.
        batch_size: batch size for arrays.
        seed: seed for the order of arrays, and of the batches of a `PyDataset`.
        strategy: the `tf.distribute.Strategy` over which batches are distributed.
        class_weight: as for `Task`.

    Attributes:
        class_weight: the weights by class; None if all examples count alike.

    Raises:
        ValueError: the data cannot be used, or the class weights do not fit the labels.
    """

    def __init__(
        self,
        source: AnyData | Callable[[int], tf.data.Dataset],
        batch_size: int,
        seed: int | None,
        strategy: tf.distribute.Strategy,
        class_weight: ClassWeight = None,
    ) -> None:
        self._strategy = strategy
        self._iterators_made = 0
        self._source, self._passes = source, None
        self._of_epoch = source if _is_function(source) else None
        if self._of_epoch is not None:
            data = dataset_of_epoch(source, 0)
        elif isinstance(source, keras.utils.PyDataset):
            self._passes = PyDatasetPasses(check_ends(source, _WHAT), seed)
            data = untuned(self._passes.dataset)
        else:
            data = batches(source, batch_size, shuffle_seed=seed)
        self.class_weight = weights_by_class(class_weight, _labels(source, data))
        self._use(data)

    def _use(self, data: tf.data.Dataset) -> None:
        """Takes a dataset as that of the coming epochs."""
        self._data = data if self.class_weight is None else weighted(data, self.class_weight)
        self._distributed = self._strategy.experimental_distribute_dataset(self._data)

    def labels(self) -> Iterator:
        """Iterates over the labels of the present epoch, batches of them or one array."""
        return _labels(self._source, self._data)

    def after(self, epochs: int) -> AnyData:
        """Returns the data in its state after some epochs, even if this run made none of them.

        Args:
            epochs: number of epochs, those of interrupted runs included.
        """
        if self._of_epoch is not None:
            return dataset_of_epoch(self._of_epoch, max(epochs - 1, 0))
        if self._passes is not None:
            return self._source
        self._skip_to(epochs)
        return self._data

    def start(self, epoch: int) -> tuple[Iterator, int | None]:
        """Returns an iterator over an epoch's batches, and their number (None if unknown).

        Call `end` when the epoch has ended.
        """
        if self._of_epoch is not None:
            self._use(dataset_of_epoch(self._of_epoch, epoch))
            self._iterators_made = epoch
        self._skip_to(epoch)
        self._iterators_made += 1
        if self._passes is not None:
            steps = self._passes.begin(epoch)
        else:
            steps = int(self._data.cardinality())
        return iter(self._distributed), steps if steps >= 0 else None

    def end(self) -> None:
        """Ends an epoch, finished or not: the workers of a `PyDataset` stop."""
        if self._passes is not None:
            self._passes.end()

    def _skip_to(self, epoch: int) -> None:
        while self._iterators_made < epoch:
            if self._passes is not None:
                self._passes.skip()
            else:
                iter(self._distributed)
            self._iterators_made += 1


def batches(
    source: AnyData, batch_size: int, shuffle_seed: int | bool | None = False
) -> tf.data.Dataset:
    """Creates a dataset of batches without autotuning, see `untuned`.

    Args:
        source: a `tf.data.Dataset`, or arrays (x, y) or (x, y, sample_weight).
        batch_size: batch size for arrays.
        shuffle_seed: seed for shuffling arrays; False keeps their order.

    Raises:
        ValueError: `source` is neither, or it never ends.
    """
    if isinstance(source, tf.data.Dataset):
        return untuned(check_ends(source, _WHAT))
    if not isinstance(source, (tuple, list)) or len(source) not in (2, 3):
        raise ValueError(
            "The data of a task are a tf.data.Dataset of batches, a keras.utils.PyDataset, arrays "
            "(x, y) or (x, y, sample_weight), or, for training, a function from an epoch to a "
            f"tf.data.Dataset; got {type(source).__name__}. Write Task(name, head, train=(images, "
            "labels))."
        )
    data = tf.data.Dataset.from_tensor_slices(tuple(map(_several, source)))
    if shuffle_seed is not False:
        data = data.shuffle(len(data), seed=shuffle_seed, reshuffle_each_iteration=True)
    return untuned(data.batch(batch_size).prefetch(tf.data.AUTOTUNE))


def _several(part: Tensors) -> Tensors:
    """Returns a list of arrays, for several inputs say, as a tuple; tf.data would stack a list."""
    if isinstance(part, list) and part and all(hasattr(each, "shape") for each in part):
        return tuple(part)
    return part


def dataset_of_epoch(source: Callable, epoch: int) -> tf.data.Dataset:
    """Calls a function for an epoch's training data; returns the dataset without autotuning.

    Raises:
        ValueError: the function returns no dataset, or one that never ends.
    """
    data = source(epoch)
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(
            f"The function that gives the training data of a task returned a {type(data).__name__} "
            f"for epoch {epoch}; expected a tf.data.Dataset of batches. Write "
            "Task(name, head, train=lambda epoch: dataset.shuffle(1000, seed=epoch).batch(32))."
        )
    return untuned(check_ends(data, _WHAT))


def for_evaluation(source: AnyData, batch_size: int) -> AnyData:
    """Returns data for `evaluate`: as `batches` does, or a `PyDataset` as it is.

    Args:
        source: as for `Task.validation`.
        batch_size: batch size for arrays.

    Raises:
        ValueError: `source` cannot be used, or it has no batches.
    """
    if isinstance(source, keras.utils.PyDataset):
        data = check_ends(source, _WHAT)
    else:
        data = batches(source, batch_size)
    if known_batches(data) == 0:
        raise ValueError(
            "The validation or test data of a task have no batches: fewer examples than a batch, "
            "perhaps, with drop_remainder=True. Leave that out, or leave out the data."
        )
    return data


def weighted(data: tf.data.Dataset, class_weight: Mapping[int, float]) -> tf.data.Dataset:
    """Multiplies the weights of examples by those of their classes.

    Args:
        data: batches (x, y) or (x, y, sample_weight).
        class_weight: weights by class.
    """

    def add_weights(*batch: Tensors) -> tuple:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        weights = weights_of(classes_of(y), class_weight)
        tf.debugging.Assert(is_one_class(y), [SEVERAL])
        if sample_weight is not None:
            weights *= tf.cast(tf.reshape(sample_weight, tf.shape(weights)), weights.dtype)
        return x, y, weights

    return untuned(data.map(add_weights, tf.data.AUTOTUNE, deterministic=True))


def _labels(source: AnyData, data: tf.data.Dataset) -> Iterator:
    """Iterates over the labels of training data: arrays, a `PyDataset`, or a dataset."""
    if isinstance(source, (tuple, list)):
        labels = source[1]
        yield np.asarray(labels) if isinstance(labels, list) else labels  # as tf.data takes lists
    elif isinstance(source, keras.utils.PyDataset):
        for place in range(source.num_batches):
            yield source[place][1]
    else:
        yield from data.map(lambda *batch: batch[1])


def untuned(data: tf.data.Dataset) -> tf.data.Dataset:
    """Switches off tf.data's autotuning, unless the dataset's options set it.

    With autotuning, an iterator often ends only when the tuning thread wakes up. The thread's
    interval doubles each time, up to a minute, so an epoch may take twice as long as its steps.
    Without autotuning, transformations with automatic parallelism use all cores.
    """
    if data.options().autotune.enabled is not None:
        return data
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


def blank_batch(source: AnyData, batch_size: int) -> tuple:
    """Creates a batch (x, y, sample_weight) of one example of zeros, shaped like `Task.train`.

    A real batch would cost an iterator and change the order of the first epoch. It is used only if
    the dataset does not know its shapes.
    """
    if isinstance(source, keras.utils.PyDataset):
        first = check_ends(source, _WHAT)[0]
        zeros = keras.tree.map_structure(lambda array: np.zeros_like(array[:1]), first)
        return keras.utils.unpack_x_y_sample_weight(zeros)
    function = _is_function(source)
    data = dataset_of_epoch(source, 0) if function else batches(source, batch_size)
    specs = tf.nest.flatten(data.element_spec)
    if not all(isinstance(spec, tf.TensorSpec) and spec.shape.rank for spec in specs):
        return keras.utils.unpack_x_y_sample_weight(next(iter(data)))
    zeros = tf.nest.map_structure(
        lambda spec: tf.zeros([size or 1 for size in spec.shape], spec.dtype), data.element_spec
    )
    return keras.utils.unpack_x_y_sample_weight(zeros)


def _is_function(source: object) -> bool:
    return callable(source) and not isinstance(source, tf.data.Dataset)
