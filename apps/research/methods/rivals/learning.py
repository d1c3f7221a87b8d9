"""Trains a rival on its tasks, one after another."""

import dataclasses
import json
import time

import keras

from packnet_tf.adoption.trained import is_trained
from packnet_tf.apps.research.methods.job import Job, TaskData, accuracy, network_bytes
from packnet_tf.apps.research.methods.plain import fit, frozen, new_head, with_heads
from packnet_tf.apps.research.methods.rivals.approaches import APPROACHES, Approach
from packnet_tf.apps.research.methods.rivals.kernels import ComputedTrunk
from packnet_tf.apps.research.methods.rivals.parts import Parts
from packnet_tf.apps.research.methods.rivals.store import Addition, Store
from packnet_tf.backend.json_files import write_json
from packnet_tf.packing.policy import NORMS
from packnet_tf.packing.weight import values_of


def learn_rival(job: Job) -> dict:
    """Trains the tasks of a run; resumes if interrupted.

    After every task all tasks so far are measured, each as a plain network with the weights that
    the store has for it.

    Returns:
        The result of the run, see `worker.py`.
    """
    approach = APPROACHES[job.run.kind](job.run)
    plain = job.trunk()
    parts = Parts(plain, approach.norms)
    store, state = _load(job, approach, parts, is_trained(plain))
    for task in job.tasks[len(store.additions) :]:
        state["seconds"][task.name] = _learn(job, task, approach, store)
        seen = job.tasks[: task.place + 1]
        found = [_measure(show_task(approach, store, parts, plain, t.place), t) for t in seen]
        for split in ("validation", "test"):
            state[split].append([accuracies[split] for accuracies in found])
        _save(job, store, plain, state)
    one, every = network_bytes(plain, [addition.head for addition in store.additions])
    return {
        **state,
        "bytes": (job.folder / _file(len(store.additions))).stat().st_size,
        "task_bytes": sum(addition.bytes for addition in store.additions),
        "one_network_bytes": one,
        "network_per_task_bytes": every,
    }


def _learn(job: Job, task: TaskData, approach: Approach, store: Store) -> float:
    """Trains the next task and adds it to the store; returns the seconds that took."""
    trunk = job.trunk()
    parts = Parts(trunk, approach.norms)
    parts.show(store.shared, values_of(parts.own))
    parts.freeze()
    settings = task.settings
    if settings.optimizer == "auto":
        settings = dataclasses.replace(settings, optimizer="adam")
    task = task.with_own_images(settings=settings)
    job.seed(task.place)
    computed = approach.compute(parts, store, task, settings.learning_rate)
    whole = ComputedTrunk(trunk, computed)
    with frozen(trunk, NORMS if approach.norms == "trunk" else ()):
        began = time.perf_counter()
        head = new_head(job, task, whole, bool(task.place))
        seconds = time.perf_counter() - began
        model = with_heads(whole, [head])
        callbacks = approach.callbacks(task, computed)
        seconds += fit(model, task, job.folder, callbacks=callbacks)
    extra = approach.keep(store, computed)
    store.additions.append(Addition(extra, values_of(parts.own), head))
    return seconds


def show_task(
    approach: Approach, store: Store, parts: Parts, trunk: keras.Model, place: int
) -> keras.Model:
    """Assigns a task's weights to a plain trunk; returns the trunk with the task's head.

    Args:
        approach: the rival.
        store: the weights of all tasks.
        parts: the parts of the trunk.
        trunk: the trunk; the models of other tasks are built on it too.
        place: the 0-based place of the task.
    """
    addition = store.additions[place]
    parts.show(approach.kernels(store, place), addition.own)
    return with_heads(trunk, [addition.head])


def _measure(model: keras.Model, task: TaskData) -> dict[str, float]:
    """Returns the accuracies of a task by split."""
    return {split: accuracy(model, task, split) for split in ("validation", "test")}


def _load(job: Job, approach: Approach, parts: Parts, trained: bool) -> tuple[Store, dict]:
    """Returns the store and the measurements after the finished tasks."""
    store, note = approach.begin(parts, trained), job.folder / "state.json"
    if not note.exists():
        return store, {"validation": [], "test": [], "seconds": {}}
    state = json.loads(note.read_text(encoding="utf-8"))
    own = [tuple(variable.shape) for variable in parts.own]
    store.read(job.folder / _file(len(state["test"])), approach.extra_shapes(parts), own)
    return store, state


def _save(job: Job, store: Store, plain: keras.Model, state: dict) -> None:
    """Saves the store first, and then the measurements that refer to it."""
    count = len(store.additions)
    store.write(job.folder / _file(count), plain)
    write_json(job.folder / "state.json", state)
    (job.folder / _file(count - 1)).unlink(missing_ok=True)


def _file(tasks: int) -> str:
    return f"after_{tasks}.npz"
