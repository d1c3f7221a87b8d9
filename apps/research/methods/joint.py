"""Joint training: one network with a head per task, trained on all tasks at once."""

import dataclasses
import time

import keras
import numpy as np
from keras import ops

from packnet_tf.apps.research.methods.job import Job, TaskData, accuracy, network_bytes, saved_bytes
from packnet_tf.apps.research.methods.plain import fit, new_head, with_heads


def learn_together(job: Job) -> dict:
    """Trains on batches that mix the tasks, for as many epochs as one task alone.

    Each image trains the head of its own task only. The settings are those of the first task.

    Returns:
        The result of the run, see `worker.py`, with a single row of accuracies, because there is
        no order.
    """
    job.seed(0)
    trunk = job.trunk()
    began = time.perf_counter()
    heads = [new_head(job, task, trunk) for task in job.tasks]
    seconds = time.perf_counter() - began
    sizes = [task.classes for task in job.tasks]
    loss = OwnHead(sizes)
    model = with_heads(trunk, heads)
    if len(heads) > 1:
        model = keras.Model(model.input, ops.concatenate(model.outputs, axis=-1))
    seconds += fit(model, Mixture.of(job), job.folder, loss, [loss.accuracy])
    one, every = network_bytes(trunk, heads)
    rows = {
        split: [
            [
                accuracy(with_heads(trunk, [head]), task, split)
                for task, head in zip(job.tasks, heads, strict=True)
            ]
        ]
        for split in ("validation", "test")
    }
    return {
        **rows,
        "seconds": {"all": seconds},
        "bytes": saved_bytes(with_heads(trunk, heads)),
        "one_network_bytes": one,
        "network_per_task_bytes": every,
    }


@dataclasses.dataclass
class Mixture:
    """The training images of several tasks as one, used in place of a `TaskData`.

    Attributes:
        name: name in messages.
        place: 0.
        settings: settings of the first task.
        train: batches (images, labels); the labels of a task are offset by the number of classes
            of the tasks before it.
    """

    name: str
    settings: object
    train: object
    place: int = 0

    @classmethod
    def of(cls, job: Job) -> "Mixture":
        import tensorflow as tf

        parts, first = [], 0
        for task in job.tasks:
            parts.append(_offset_labels(task, first))
            first += task.classes
        counts = np.array([len(task.folder.files["train"]) for task in job.tasks])
        mixed = tf.data.Dataset.sample_from_datasets(
            parts, weights=counts / counts.sum(), seed=job.run.seed
        )
        settings = job.tasks[0].settings
        steps = -(-counts.sum() // settings.batch_size)
        train = job.tasks[0].pipeline.batches(mixed)
        return cls("all", settings, train.apply(tf.data.experimental.assert_cardinality(steps)))


def _offset_labels(task: TaskData, first: int):
    settings = task.settings
    examples = task.pipeline.training_examples(
        task.folder.files["train"], settings.flip, settings.crop
    )
    return examples.map(lambda image, label: (image, label + first))


class OwnHead(keras.losses.Loss):
    """Cross-entropy over the classes of an example's own task, ignoring other heads.

    Args:
        sizes: number of classes of each task; labels are offset by those of earlier tasks.
    """

    def __init__(self, sizes: list[int]):
        super().__init__(name="own_head")
        self._task = np.repeat(np.arange(len(sizes)), sizes)

    def call(self, y_true, y_pred):
        return -ops.take_along_axis(
            ops.log_softmax(self._own(y_true, y_pred)), _column(y_true), axis=-1
        )[:, 0]

    def accuracy(self, y_true, y_pred):
        """Returns the accuracy when only the classes of an example's own task are compared."""
        found = ops.argmax(self._own(y_true, y_pred), axis=-1)
        return ops.cast(ops.equal(found, _column(y_true)[:, 0]), "float32")

    def _own(self, y_true, y_pred):
        task = ops.convert_to_tensor(self._task)
        own = ops.equal(task[None, :], ops.take(task, _column(y_true)))
        return ops.where(own, y_pred, -1e9)


def _column(labels):
    return ops.cast(ops.reshape(labels, (-1, 1)), "int32")
