"""PackNet itself, run by `PackTrainer`."""

import json
import time

import numpy as np
from keras import ops

import packnet_tf
from packnet_tf.adoption.trained import is_trained
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.base import (
    adopt,
    default_restart,
    optimizer_name,
    optimizer_of_open,
    reused,
)
from packnet_tf.apps.packs.beginning import Beginning, begin
from packnet_tf.apps.packs.floor import OVERLAY, Floor, as_tried
from packnet_tf.apps.packs.overlay import overlay_after, overlay_of
from packnet_tf.apps.packs.plan import BASE
from packnet_tf.apps.research.definition import BETTER
from packnet_tf.apps.research.methods.job import Job, TaskData, accuracy, network_bytes
from packnet_tf.apps.research.settings import Packing
from packnet_tf.backend.json_files import write_json
from packnet_tf.reporting.history import History
from packnet_tf.trainer.run import HISTORY, PACK
from packnet_tf.training.heads import next_features
from packnet_tf.training.overlay_search import largest_share

PREPARATION = "preparation_seconds"  # key of a task's entry in the history
SECONDS = "base_seconds"  # key of the pack's note with the time that the base took


def pack_tasks(job: Job) -> dict:
    """Packs the tasks in order; resumes an interrupted run.

    Also writes `filters.npz`, the first filters as every task sees them.

    Returns:
        The result of the run, see `worker.py`, with the accuracies around the prune, and each
        task's share of every layer.
    """
    directory = job.folder / "progress"
    net, options = _open(job, directory), Packing(**job.run.options)
    # Of a trunk built anew: in a pack that was resumed, tasks own some of its weights by now.
    filters = {"trunk": _first_filters(packnet_tf.PackNet(job.trunk()))}
    state, views = _read(job), {}  # later tasks do not change the outputs of a view
    for task, way in zip(job.tasks, _ways(options, len(job.tasks)), strict=True):
        if task.name not in net.tasks:
            job.seed(task.place)
            _learn(net, job, task.with_own_images(), way, options, directory)
        if len(state["test"]) == task.place:
            seen = job.tasks[: task.place + 1]
            views |= {t.name: net.task_model(t.name) for t in seen if t.name not in views}
            for split in ("validation", "test"):
                state[split].append([accuracy(views[t.name], t, split) for t in seen])
            _write(job, state)
    for name in net.tasks:
        filters[f"task {name}"] = _first_filters(net, name)
    np.savez(job.folder / "filters.npz", **filters)
    net.save(job.folder / "pack.keras")
    return {**state, **_measured(net, job, directory)}


def _open(job: Job, directory) -> packnet_tf.PackNet:
    if (directory / PACK).exists():
        return packnet_tf.load(directory / PACK)
    options, trunk, first = Packing(**job.run.options), job.trunk(), job.tasks[0]
    new_head = first.settings.head != "pretrained"
    trained = is_trained(trunk)
    has_base = options.base is not None and new_head and trained
    restart = options.restart
    if restart == "auto":
        restart = default_restart(trained, has_base)
    net = packnet_tf.PackNet(trunk, biases=options.biases, norms=options.norms, restart=restart)
    if not has_base:
        return net
    began = time.perf_counter()
    adopt(net, BASE, first.repair_images(), options.base, options.base_epochs)
    net.notes[SECONDS] = str(time.perf_counter() - began)
    directory.mkdir(parents=True, exist_ok=True)
    net.save(directory / PACK)
    return net


def _ways(options: Packing, count: int) -> list:
    """Returns the ratio, or `Auto`, of each task."""
    if options.prune == "auto":
        return [packnet_tf.Auto(options.max_drop)] * count
    return prunes(options.prune, count)


def prunes(prune: str | float | list[float], count: int) -> list[float]:
    """Returns the ratio of each task.

    Args:
        prune: a value of the setting, but not auto.
        count: the number of tasks.
    """
    named = {
        "equal_shares": packnet_tf.equal_shares(count),
        "paper": [*[0.5, *[0.75] * count][: count - 1], 0.0],
    }
    ratios = named[prune] if isinstance(prune, str) else prune
    return ratios if isinstance(ratios, list) else [ratios] * (count - 1) + [0.0]


def _learn(
    net: packnet_tf.PackNet, job: Job, task: TaskData, way, options: Packing, directory
) -> None:
    """Trains and commits a task; see `floor` for one that ends below its linear head."""
    settings, new_optimizer = task.settings, optimizer_of_open(net, task.settings.optimizer)
    last = None  # the floor of the last attempt, and the time of all preparations

    def prepare(net, memory: dict) -> packnet_tf.Task:
        nonlocal last
        began, images, reuse = time.perf_counter(), task.images(), reused(options.reuse)
        sees = len(net.state.seen_by_next(reuse)) > 1
        overlay = memory.get(OVERLAY) or overlay_of(options.overlay, way, net.capacity().free, sees)
        factors = rates.factors(
            net,
            optimizer_name(net, settings.optimizer, owns=overlay is None),
            way,
            options.gradual,
            scale_rate=options.scale_rate,
            owns=overlay is None,
        )
        if settings.head == "new":
            begun = begin(
                net,
                task.name,
                images,
                new_optimizer,
                rate=settings.learning_rate * factors[0],
                factor=factors[0],
                reuse=reuse,
                statistics=memory.get("statistics"),
                overlay=largest_share(overlay),
            )
        else:
            head = job.head(task, next_features(net, reuse=reuse), False, factors[0])
            begun = Beginning(head, "task", {})
        memory["statistics"] = begun.statistics
        memory.setdefault("seconds", memory.get("before", 0.0) + time.perf_counter() - began)
        made = packnet_tf.Task(
            task.name,
            begun.head,
            task.train,
            task.validation,
            classes=task.folder.classes,
            statistics=begun.statistics,
            reuse=reuse,
            reference=begun.reference,
            rate_factors=tuple(factor * begun.rate_factor for factor in factors),
            overlay=overlay,
            **(rates.of_overlay(settings, settings.decay, settings.decay_every) if overlay else {}),
        )
        fallback = overlay_after(options.overlay, overlay, sees)
        last = Floor(made, begun, images, fallback, memory), memory["seconds"]
        return as_tried(made, memory)

    def retry(net, entry: dict) -> dict | None:
        nonlocal last
        floor, entry[PREPARATION] = last
        again = floor.retry(net, entry)
        if again is None:
            return None
        last = None  # and its images
        return {**again, "before": _seconds(entry)}

    def finish(net, entry: dict) -> None:
        last[0].hold(net, entry)

    first, then = rates.of_phases(settings, settings.decay, settings.decay_every)
    packnet_tf.PackTrainer(
        net,
        new_optimizer,
        epochs=settings.prune_epoch,
        retrain_epochs=settings.epochs - settings.prune_epoch,
        learning_rate=first,
        retrain_learning_rate=then,
        prune=rates.pruning(way, settings.prune_epoch, task.steps, options.gradual),
        directory=directory,
        batch_size=settings.batch_size,
        seed=job.run.seed,
        tensorboard=False,
    ).fit([packnet_tf.PendingTask(task.name, prepare, finish, retry)])


def _measured(net, job: Job, directory) -> dict:
    folder, names = job.folder, [task.name for task in job.tasks]
    history = History.read(directory / HISTORY)
    plain = [net.unpack(name) for name in names]
    trunk_of = [model.layers[1] for model in plain]
    heads = [model.layers[-1] for model in plain]
    one, every = network_bytes(trunk_of[0], heads)
    moments = ("before_prune", "after_prune", "retrained")
    return {
        "seconds": {
            **({net.base: float(net.notes[SECONDS])} if net.base else {}),
            **{name: _seconds(history[name]) for name in names},
        },
        "bytes": (folder / "pack.keras").stat().st_size,
        "one_network_bytes": one,
        "network_per_task_bytes": every,
        "linear_heads": {
            name: BETTER for name in names if history[name].get("linear_head_kept", False)
        },
        "ratios": {name: history[name]["prune_ratio"] for name in names},
        "moments": {
            name: {m: history[name][m]["accuracy"] for m in moments if history[name][m]}
            for name in names
        },
        "capacity": net.capacity().to_dict(),
    }


def _seconds(entry: dict) -> float:
    """Returns the time of a task's epochs and of the preparation before them, in seconds."""
    return entry[PREPARATION] + sum(epoch["seconds"] for epoch in entry["epochs"])


def _first_filters(net, task: str | None = None) -> np.ndarray:
    """Returns the first packed weight as a task sees it, or by default that of the trunk."""
    weight = next(iter(net.state.trunk.packed_weights().values()))
    return ops.convert_to_numpy(weight.view(net.state.record(task).sees) if task else weight.packed)


def _read(job: Job) -> dict:
    path = job.folder / "state.json"
    empty = {"validation": [], "test": []}
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty


def _write(job: Job, state: dict) -> None:
    write_json(job.folder / "state.json", state)
