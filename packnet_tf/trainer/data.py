"""Training data, one pass after another, in an order that a resumed run repeats."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from packnet_tf.backend.datasets import check_ends
from packnet_tf.backend.types import AnyData


class TrainingData:
    """The passes over the training data of a task.

    A dataset with seeds draws new random numbers for every iterator made of it. So a run that goes
    on in epoch 7 first makes the iterators of epochs 0 to 6, without reading from them: its order
    and augmentation are then those of a run that was never interrupted.

    Args:
        source: what `Task.train` may be.
        batch_size: for arrays.
        seed: for arrays, of their order.
        strategy: the `tf.distribute.Strategy` to spread batches over.
    """

    def __init__(
        self,
        source: AnyData | Callable[[int], tf.data.Dataset],
        batch_size: int,
        seed: int | None,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._strategy = strategy
        self._made = 0
        self._of_epoch = source if _is_function(source) else None
        if self._of_epoch is not None:
            self._data = dataset_of_epoch(source, 0)
        else:
            self._data = batches(source, batch_size, shuffle_seed=seed)
            self._spread = strategy.experimental_distribute_dataset(self._data)

    def after(self, epochs: int) -> tf.data.Dataset:
        """The dataset as it is after so many epochs, also where this run has made none of them.

        Args:
            epochs: how many were made, in runs that were interrupted too.
        """
        if self._of_epoch is not None:
            return dataset_of_epoch(self._of_epoch, max(epochs - 1, 0))
        self._skip_to(epochs)
        return self._data

    def start(self, epoch: int) -> tuple[Iterator, int | None]:
        """An iterator over the batches of an epoch, and how many they are, where that is known."""
        if self._of_epoch is not None:
            self._data = dataset_of_epoch(self._of_epoch, epoch)
            self._spread = self._strategy.experimental_distribute_dataset(self._data)
            self._made = epoch
        self._skip_to(epoch)
        self._made += 1
        steps = int(self._data.cardinality())
        return iter(self._spread), steps if steps >= 0 else None

    def _skip_to(self, epoch: int) -> None:
        while self._made < epoch:
            iter(self._spread)
            self._made += 1


def batches(
    source: AnyData, batch_size: int, shuffle_seed: int | bool | None = False
) -> tf.data.Dataset:
    """A dataset of batches from a dataset or from a tuple of arrays, `untuned`.

    Args:
        source: a `tf.data.Dataset`, or arrays (x, y) or (x, y, sample_weight).
        batch_size: of the arrays.
        shuffle_seed: False to keep the order of the arrays.

    Raises:
        ValueError: it is neither, or it never ends.
    """
    if isinstance(source, tf.data.Dataset):
        return untuned(check_ends(source, "The data of a task"))
    if not isinstance(source, (tuple, list)) or len(source) not in (2, 3):
        raise ValueError(
            f"The data of a task are a tf.data.Dataset of batches, arrays (x, y) or (x, y, "
            f"sample_weight), or, for training, a function from an epoch to a dataset; got "
            f"{type(source).__name__}. Write Task(name, head, train=(images, labels))."
        )
    data = tf.data.Dataset.from_tensor_slices(tuple(source))
    if shuffle_seed is not False:
        data = data.shuffle(len(data), seed=shuffle_seed, reshuffle_each_iteration=True)
    return untuned(data.batch(batch_size).prefetch(tf.data.AUTOTUNE))


def dataset_of_epoch(source: Callable, epoch: int) -> tf.data.Dataset:
    """What a function gives as the training data of an epoch, `untuned`.

    Raises:
        ValueError: it is no dataset, or never ends.
    """
    data = source(epoch)
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(
            f"The function that gives the training data of a task returned a {type(data).__name__} "
            f"for epoch {epoch}; expected a tf.data.Dataset of batches. Write "
            "Task(name, head, train=lambda epoch: dataset.shuffle(1000, seed=epoch).batch(32))."
        )
    return untuned(check_ends(data, "The data of a task"))


def untuned(data: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset, whose iterators end with their last batch: tf.data does not tune itself.

    While it does, an iterator often ends only when its tuner wakes up again, and that is after
    twice the time each time, up to a minute: an epoch may take twice as long as its steps. What
    leaves its parallelism to tf.data then uses all cores. Where the options of the dataset say
    whether to tune, that stays.
    """
    if data.options().autotune.enabled is not None:
        return data
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


def blank_batch(source: AnyData, batch_size: int) -> tuple:
    """A batch of one example of zeros, (x, y, sample_weight), shaped like those of `Task.train`.

    A true one would cost an iterator, and with it the order that the first epoch would have had.
    It is taken only where a dataset does not know its shapes.
    """
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
