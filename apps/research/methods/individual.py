"""The individual network of a task, trained as well as the same epochs allow: packing's baseline.

It gets everything that a packed task gets: a converged initial head, a choice between batch
statistics and those of the trunk by the same trial, and a linear head to fall back on.
"""

import dataclasses
import json
import time

import keras

from packnet_tf.adoption.trained import is_trained
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.beginning import trial
from packnet_tf.apps.research.definition import BETTER, DIVERGED
from packnet_tf.apps.research.methods.job import Job, TaskData, accuracy
from packnet_tf.apps.research.methods.plain import (
    GUIDE_RATE,
    fit,
    frozen,
    plain_optimizer,
    train_everything,
    with_heads,
)
from packnet_tf.apps.research.settings import Settings
from packnet_tf.backend.atomic import replacing
from packnet_tf.normalization.following import moves_statistics
from packnet_tf.packing.cloning import copy_layer
from packnet_tf.packing.policy import NORMS


def train_own(job: Job, task: TaskData, trunk: keras.Model, heads: list) -> float:
    """Trains all weights on one task, with the statistics that are better on validation images.

    If a linear head on the original trunk is better in the end, it is kept, as anybody would do;
    the job notes why. Returns the seconds of training and of the trial.
    """
    came = job.trunk()
    if task.settings.head != "new" or not is_trained(came):
        return train_everything(job, task, trunk, heads)
    began = time.perf_counter()
    linear = job.head(task, came.predict_on_batch, True)
    linear.name = heads[-1].name
    floor = accuracy(with_heads(came, [linear]), task, "validation")
    way = _chosen(job, task, heads[-1], linear) if moves_statistics(came) else "task"
    if way == "trunk":
        heads[-1] = copy_layer(linear)
    seconds = time.perf_counter() - began
    settings, frozen_kinds = _variant(task.settings, way)
    with frozen(trunk, frozen_kinds):
        model = with_heads(trunk, heads[-1:])
        began = time.perf_counter()
        try:
            seconds += fit(model, dataclasses.replace(task, settings=settings), job.folder)
            reached = accuracy(with_heads(trunk, heads[-1:]), task, "validation")
        except FloatingPointError as error:
            print(error, flush=True)
            seconds, reached = seconds + time.perf_counter() - began, None
    if reached is None or floor > reached:
        print(f"{task.name}: the linear head is better than all weights trained", flush=True)
        job.linear_heads[task.name] = DIVERGED if reached is None else BETTER
        trunk.set_weights(came.get_weights())
        heads[-1] = linear
    return seconds


def _variant(settings: Settings, way: str) -> tuple[Settings, tuple]:
    """Returns settings and frozen layer classes; with the trunk's statistics, as Keras's guide."""
    if way == "task":
        return settings, ()
    guide = {"optimizer": "adam", "learning_rate": GUIDE_RATE, "retrain_learning_rate": None}
    return dataclasses.replace(settings, **guide), NORMS


def _chosen(job: Job, task: TaskData, batches_head, linear_head) -> str:
    """Returns the statistics that are better after a trial, and saves the choice for a resume."""
    kept = job.folder / f"statistics_{task.place}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    tried = {
        way: _try(job, task, way, copy_layer(head))
        for way, head in (("trunk", linear_head), ("task", batches_head))
    }
    steps = task.images().trial_steps
    print(f"{task.name}: after {steps} steps, by statistics: {tried}", flush=True)
    way = max(tried, key=tried.get)  # a tie goes to the trunk's, as in packing
    with replacing(kept) as temporary:
        temporary.write_text(json.dumps(way), encoding="utf-8")
    return way


def _try(job: Job, task: TaskData, way: str, head: keras.Model) -> float:
    """Returns the validation accuracy of a new copy of the trunk after the steps of a trial."""
    trunk, (settings, frozen_kinds) = job.trunk(), _variant(task.settings, way)
    job.seed(task.place)
    with frozen(trunk, frozen_kinds):
        model = with_heads(trunk, [head])
        optimizer = rates.optimizer(plain_optimizer(settings))(settings.learning_rate)
        return trial(model, optimizer, task.images())
