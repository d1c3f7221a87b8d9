"""Learning without forgetting: old heads keep answering as they did, on the new task's images."""

import keras
from keras import ops

from packnet_tf.apps.comparison.job import Job, TaskData
from packnet_tf.apps.comparison.plain import LOSS, fit, train_everything, with_heads
from packnet_tf.apps.comparison.settings import Distillation


def distil(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> None:
    """Trains the network on a task without its old heads drifting; all weights train.

    First the new head alone, then everything. What the old heads should answer is what the network
    answered before the task, on the same augmented images.

    Source: Li & Hoiem, Learning without Forgetting, 2016, section 3; temperature 2.
    """
    if len(heads) == 1 or task.settings.head == "pretrained":
        train_everything(job, task, trunk, heads)
        return
    options = Distillation(**job.run.options)
    if not (job.folder / "backup").exists():  # else it was stopped after the warm-up
        _warm_up(task, trunk, heads[-1], options.warm_up)
    teacher = _copy(job, trunk, heads[:-1])
    model = with_heads(trunk, [*heads[:-1], heads[-1]], Student)
    model.learn_from(teacher, options)
    fit(model, task, job.folder, loss=None, metrics=())


class Student(keras.Model):
    """A network whose last output learns from labels, and the others from a teacher."""

    def learn_from(self, teacher: keras.Model, options: Distillation) -> None:
        self._teacher = [teacher]  # in a list: its weights are none of this model's
        self._options = options

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        old = self._teacher[0](x, training=False)
        old = old if isinstance(old, (list, tuple)) else [old]
        *answers, new = y_pred
        loss = LOSS(y, new)
        for target, answer in zip(old, answers, strict=True):
            loss += self._options.weight * distance(target, answer, self._options.temperature)
        return loss


def distance(target, answer, temperature: float):
    """Cross-entropy of two answers, both softened: divided by the temperature before the softmax.

    Args:
        target, answer: logits (n, classes).
        temperature: above 1 gives small probabilities more weight.

    Returns:
        The mean over n.

    Source: Li & Hoiem 2016, equations 2 to 4.
    """
    wanted = ops.softmax(target / temperature)
    return -ops.mean(ops.sum(wanted * ops.log_softmax(answer / temperature), axis=-1))


def _warm_up(task: TaskData, trunk: keras.Model, head, epochs: int) -> None:
    trunk.trainable = False
    model = with_heads(trunk, [head])
    rate = task.settings.learning_rate
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), LOSS, jit_compile=False)
    model.fit(task.train, epochs=epochs, verbose=0, shuffle=False)
    trunk.trainable = True
    print(f"{task.name}: the new head is warm", flush=True)


def _copy(job: Job, trunk: keras.Model, heads: list) -> keras.Model:
    """The network as it is now; `fit` must not find it changed when it is continued."""
    path = job.folder / "teacher.keras"
    if not (job.folder / "backup").exists():
        with_heads(trunk, heads).save(path)
    return keras.saving.load_model(path, compile=False)
