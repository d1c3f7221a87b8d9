"""Learning without Forgetting: old heads keep their outputs on the new task's images."""

import dataclasses
import time
from collections.abc import Callable

import keras
from keras import ops

from packnet_tf.apps.packs import rates
from packnet_tf.apps.research.methods.job import Job, TaskData
from packnet_tf.apps.research.methods.plain import (
    LOSS,
    fit,
    frozen,
    plain_optimizer,
    progress_of,
    with_heads,
)
from packnet_tf.apps.research.settings import Distillation
from packnet_tf.backend.distribution import has_accelerator
from packnet_tf.packing.policy import NORMS


def distil(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> float:
    """Trains all weights on a task, while old heads are held to their former outputs.

    The new head trains first, alone. Then all weights train, those of normalisation only if the
    options say so. The targets of the old heads are the outputs of the network before the task, on
    the same augmented images.

    Returns:
        Seconds of training.

    Source: Li & Hoiem, Learning without Forgetting, 2016, section 3; temperature 2.
    """
    if len(heads) == 1:
        return fit(with_heads(trunk, heads), task, job.folder)
    options = Distillation(**job.run.options)
    path = job.folder / "teacher.keras"
    seconds = 0.0
    # Also when a run resumes: the network is that before the task until `fit` reads its progress.
    with_heads(trunk, heads[:-1]).save(path)
    if not progress_of(task, job.folder).exists():  # otherwise it was interrupted after the warm-up
        seconds = _warm_up(task, trunk, heads[-1], options.warm_up)
    teacher = keras.saving.load_model(path, compile=False)
    with frozen(trunk, NORMS if options.norms == "frozen" else ()):
        student = with_heads(trunk, heads, Student)
        student.learn_from(lambda images: teacher(images, training=False), options)
        seconds += fit(student, task, job.folder, loss=None, metrics=())
    path.unlink()
    return seconds


class Student(keras.Model):
    """A network whose last output learns from labels, and whose others learn from a teacher."""

    def learn_from(self, teacher: Callable, options: Distillation) -> None:
        """Sets the teacher. It is a function, because Keras would train a model as a sublayer."""
        self._teacher, self._options = teacher, options

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        old = self._teacher(x)
        old = old if isinstance(old, (list, tuple)) else [old]
        *answers, new = y_pred
        loss = LOSS(y, new) + sum(self.losses)
        for target, answer in zip(old, answers, strict=True):
            loss += self._options.weight * distance(target, answer, self._options.temperature)
        return loss


def distance(target, answer, temperature: float):
    """Computes the cross-entropy of two softmaxes of logits divided by a temperature.

    Args:
        target, answer: logits (n, classes); no gradient goes through the target.
        temperature: a value above 1 gives small probabilities more weight.

    Returns:
        The mean over n, a scalar.

    Source: Li & Hoiem 2016, equations 2 to 4.
    """
    wanted = ops.softmax(ops.stop_gradient(target) / temperature)
    return -ops.mean(ops.sum(wanted * ops.log_softmax(answer / temperature), axis=-1))


def _warm_up(task: TaskData, trunk: keras.Model, head, epochs: int) -> float:
    data = dataclasses.replace(task).train  # a new dataset: the task's own must start at epoch 0
    settings = task.settings
    with frozen(trunk):
        model = with_heads(trunk, [head])
        optimizer = rates.optimizer(plain_optimizer(settings))(settings.learning_rate)
        model.compile(optimizer, LOSS, jit_compile=has_accelerator())
        began = time.perf_counter()
        model.fit(data, epochs=epochs, verbose=0, shuffle=False)
    print(f"{task.name}: the new head is warm", flush=True)
    return time.perf_counter() - began
