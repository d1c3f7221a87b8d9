"""`packnet train`: packs tasks from folders of images."""

import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
from collections.abc import Mapping

import keras
import tensorflow as tf

import packnet_tf
from packnet_tf.apps.images.folders import Folder, print_notes, read_folders, readable
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.base import coming_base, optimizer_of_open, reused
from packnet_tf.apps.packs.job import Job
from packnet_tf.apps.packs.opening import check_shapes, open_pack, pixel_range
from packnet_tf.apps.packs.overlay import SHARE, Overlay, overlay_of, owned
from packnet_tf.apps.packs.plan import Plan, logs_folder, progress_folder
from packnet_tf.backend.distribution import is_chief, strategy_of
from packnet_tf.backend.writers import locked
from packnet_tf.planning import plan as planned
from packnet_tf.planning import plan_table, too_little
from packnet_tf.reporting.history import MOMENTS
from packnet_tf.reporting.tables import count_bytes, text_table
from packnet_tf.tasks.overlays import check_overlay
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.tasks.stored_pack import OtherPack
from packnet_tf.trainer.run import PACK, ChangedSetting

# Settings that may change when a run is resumed: one that diverged needs another learning rate.
FREE = ("pack", "fresh", "cache", "learning_rate", "retrain_learning_rate")


@dataclasses.dataclass
class Report:
    """The results of a task; prints as a summary.

    Attributes:
        task: name of the task.
        pack: file of the pack.
        classes: names of the classes.
        images: number of images by split.
        accuracy: 0 to 1, by moment: on validation images "of a linear head" (on a trained trunk),
            "before the prune", "after it" and "retrained", and on test images "test".
        prune_ratio: share of its claim that the task released, 0 to 1.
        overrides: fraction of the packed weights that its overlay has, 0 to 1; None: it owns
            weights.
        capacity: the free fraction of the pack, 0 to 1.
        pack_bytes: size of the pack's file.
        unreadable: by path, why an image was skipped.
    """

    task: str
    pack: str
    classes: list[str]
    images: dict[str, int]
    accuracy: dict[str, float]
    prune_ratio: float
    overrides: float | None
    capacity: float
    pack_bytes: int
    unreadable: dict[str, str]

    def __str__(self) -> str:
        rows = [
            ["classes", str(len(self.classes))],
            *([f"{split} images", f"{count:,}"] for split, count in self.images.items()),
            ["unreadable images, skipped", str(len(self.unreadable))],
            *([f"accuracy, {moment}", f"{value:.1%}"] for moment, value in self.accuracy.items()),
            ["released", f"{self.prune_ratio:.1%}"]
            if self.overrides is None
            else ["overrides of the packed weights", f"{self.overrides:.1%}"],
            ["capacity left", f"{self.capacity:.1%}"],
            [self.pack, count_bytes(self.pack_bytes)],
        ]
        text = text_table([f"task {self.task}", ""], rows)
        for reason in sorted(self.unreadable.values()):
            text += f"\nSkipped: {reason}"
        return text


def train(plan: Plan) -> Report:
    """Packs one task; see `train_all`."""
    return train_all(plan)[-1]


def train_all(plan: Plan, folders: Mapping[str, Folder] | None = None) -> list[Report]:
    """Trains, prunes, retrains and commits tasks, and saves the pack after each.

    Other processes cannot save the pack meanwhile.

    Progress is kept in a folder beside the pack; the same plan continues from there.

    Args:
        plan: the settings.
        folders: the images of its tasks by name; default: list them now.

    Returns:
        A report per task. With several workers, only the chief returns reports.

    Raises:
        FileNotFoundError, ValueError: something is missing or does not fit; the message says what.
        BlockingIOError: another process works on the pack.
    """
    # Before the pack is read, since it could change until it is saved. Of workers the chief saves.
    chief = is_chief(tf.distribute.get_strategy())
    with locked(plan.pack) if chief else contextlib.nullcontext():
        return _train_all(plan, folders)


def _train_all(plan: Plan, folders: Mapping[str, Folder] | None) -> list[Report]:
    pairs = plan.pairs()
    folders = folders or read_folders(pairs, plan.validation_share, plan.seed)
    if len(folders) < len(pairs):
        raise ValueError("Two tasks of this command have the same name. Give each one its own.")
    directory = progress_folder(plan.pack)
    if plan.fresh:
        shutil.rmtree(directory, ignore_errors=True)
    keras.utils.set_random_seed(plan.seed)
    net = open_pack(plan)
    check_shapes(net.state.trunk, plan.pack)
    pixel_range(net, plan.pack)  # raises before any progress is saved
    prunes = _prunes(plan, len(pairs))
    jobs = [
        Job(plan, task, readable(folders[task]), prune)
        for (task, _), prune in zip(pairs, prunes, strict=True)
    ]
    for job in jobs:
        print_notes(job.name, job.folder.notes)
    chief = is_chief(strategy_of(net))
    trainer = _trainer(plan, net, jobs, directory, chief)
    if directory.exists():
        _resume(trainer, directory)
        print(f"Continuing the interrupted run in '{directory}'.", flush=True)
    _check_names(plan, net, trainer.history)
    coming = {job.name: job.prune for job in jobs if job.name not in net.tasks}
    _print_plan(plan, net, coming, _overlays(plan, net, coming))
    history = trainer.fit([job.pending() for job in jobs])
    if not chief:
        return []
    size = pathlib.Path(plan.pack).stat().st_size
    reports = [_report(plan, net, job, history[job.name], size) for job in jobs]
    shutil.rmtree(directory, ignore_errors=True)
    return reports


def _trainer(
    plan: Plan, net, jobs: list[Job], directory: pathlib.Path, chief: bool
) -> packnet_tf.PackTrainer:
    steps = [math.ceil(len(job.folder.files["train"]) / plan.batch_size) for job in jobs]
    settings = {name: _noted(value) for name, value in dataclasses.asdict(plan).items()}
    return packnet_tf.PackTrainer(
        net,
        optimizer_of_open(net, plan.optimizer, plan.accumulation),
        epochs=plan.prune_epoch,
        retrain_epochs=plan.epochs - plan.prune_epoch,
        prune=[
            rates.pruning(job.prune, plan.prune_epoch, count, plan.gradual)
            for job, count in zip(jobs, steps, strict=True)
        ],
        directory=directory,
        logs=logs_folder(plan.pack),
        batch_size=plan.batch_size,
        jit_compile={"on": True, "off": False}.get(plan.jit_compile, "auto"),
        seed=plan.seed,
        settings={name: value for name, value in settings.items() if name not in FREE},
        on_commit=lambda task: net.save(plan.pack) if chief else None,
        **_rates(plan),
    )


def _noted(value: object) -> object:
    """Returns the value of a setting as a run notes it: paths without a slash at the end."""
    if isinstance(value, str) and os.path.exists(value):
        return os.path.normpath(value)
    return tuple(map(_noted, value)) if isinstance(value, tuple) else value


def _resume(trainer: packnet_tf.PackTrainer, directory: pathlib.Path) -> None:
    try:
        trainer.resume()
    except ChangedSetting as error:
        if error.task is not None:
            raise  # of the trainer's own settings, which are no flags
        raise ValueError(
            f"An interrupted run had --{error.name}={error.before}, this one has "
            f"--{error.name}={error.now}. Repeat the old command to continue it, or add --fresh to "
            "start over."
        ) from error
    except OtherPack as error:
        raise ValueError(
            f"{error.fact}. Add --fresh to start over with the pack as it is now. Or bring back "
            f"the old one, to continue: a copy is '{directory / PACK}'."
        ) from error


def _check_names(plan: Plan, net, begun: Mapping) -> None:
    """Checks that the pack has no tasks of these names, except those that this run packed."""
    for task, _ in plan.pairs():
        if task in net.tasks and task not in begun:
            raise ValueError(
                f"The pack '{plan.pack}' has a task '{task}' already. Choose another name for the "
                "new task, or leave it out of the command."
            )
        if task not in net.tasks:
            net.state.check_name(task)
    base = coming_base(net)
    if base:
        net.state.check_name(base)
    if base in dict(plan.pairs()):
        raise ValueError(
            f"'{base}' is to be the name of the pretrained trunk, which becomes the first task. "
            f"Choose another name for the new task, or write --adopt=trunk, for instance."
        )


def _overlays(plan: Plan, net, prunes: Mapping[str, object]) -> dict[str, Overlay]:
    """Returns the overlays of the tasks to come; None for those that will own weights.

    Args:
        plan: the settings.
        net: the pack.
        prunes: the ratio, or `Auto`, of each task to come, in order.

    Raises:
        ValueError: --reuse or --overlay cannot be, or there is no room; before hours of work.
    """
    owning = [record.name for record in net.state.owning]
    owning = owning or [name for name in [coming_base(net)] if name]
    others = [record.name for record in net.state.overriding]
    free, found = _free(plan, net), dict[str, Overlay]()
    for task, prune in prunes.items():
        seen = seen_numbers(reused(plan.reuse), owning, others)[:-1]
        overlay = overlay_of(plan.overlay, prune, free, bool(seen), plan.claim_ratio)
        if overlay is None and free == 0:
            raise ValueError(
                f"The pack '{plan.pack}' will have no free weights for task '{task}'. Let it "
                "override weights of others, --overlay=0.05, or prune the tasks before it more."
            )
        if overlay is not None and not seen:
            raise ValueError(
                f"Task '{task}' sees no earlier task, whose weights it would override. Write "
                "--overlay=none, or let it see some: --reuse=all, or --adopt=auto for a new pack."
            )
        if isinstance(overlay, float):
            check_overlay(task, overlay, 1.0, seen, net.state.size, has_owners=True)
        found[task] = overlay
        (owning if overlay is None else others).append(task)
        if overlay is None and isinstance(prune, float):
            free -= owned(prune, free, plan.claim_ratio)
    return found


def _free(plan: Plan, net) -> float:
    """Returns the fraction of the packed weights that the first task to come finds free."""
    return plan.adopt_ratio if coming_base(net) else net.capacity().free


def _seen_before(plan: Plan, net) -> float | None:
    """Returns the fraction of the packed weights that each task to come sees besides its own.

    None stands for those of all earlier tasks, as in `planning.plan`.
    """
    coming, whole = coming_base(net), net.capacity().sum()
    owned = {name: count / whole["total"] for name, count in whole["owned"].items()}
    if coming:
        owned = {coming: 1.0 - plan.adopt_ratio}
    base, reuse = coming or net.base, reused(plan.reuse)
    if reuse == "all" or (reuse == "auto" and base is None):
        return None
    seen = seen_numbers(reuse, list(owned), base=base)[:-1]
    return sum(list(owned.values())[number - 1] for number in seen)


def _report(plan: Plan, net, job: Job, entry: dict, pack_bytes: int) -> Report:
    moments = {**MOMENTS, "test": "test"}
    floor = net.results(job.name).get("linear_head")
    found = {} if floor is None else {"of a linear head": floor}
    whole, overrides = net.capacity().sum(), not net.state.record(job.name).owns
    return Report(
        job.name,
        plan.pack,
        job.folder.classes,
        {split: len(files) for split, files in job.folder.files.items()},
        found | {moment: entry[key]["accuracy"] for moment, key in moments.items() if entry[key]},
        entry["prune_ratio"],
        whole["overlaid"][job.name] / whole["total"] if overrides else None,
        entry["capacity"],
        pack_bytes,
        job.folder.unreadable,
    )


def _rates(plan: Plan) -> dict:
    """Returns the learning rates of the two phases of a task, as arguments of `PackTrainer`."""
    first, then = rates.of_phases(plan, decay="cosine" if plan.decay else "none")
    return {"learning_rate": first, "retrain_learning_rate": then}


def _prunes(plan: Plan, count: int) -> list:
    """Returns the ratio, or `Auto`, of each task; an overlay's share decides for such tasks."""
    if plan.all_override:
        return [packnet_tf.Auto(plan.max_drop) if plan.overlay == "auto" else 0.0] * count
    named = {
        "ratio": [plan.prune_ratio] * count,
        "auto": [packnet_tf.Auto(plan.max_drop)] * count,
        "equal_shares": packnet_tf.equal_shares(count),
    }
    return named.get(plan.prune) or plan.ratios()


def _print_plan(
    plan: Plan, net, prunes: Mapping[str, object], overlays: Mapping[str, Overlay]
) -> None:
    """Prints the share that every task to come will get; warns of small ones and early prunes."""
    if plan.prune_epoch == 0 and any(prune != 0 for prune in prunes.values()):
        print(
            "WARNING: the prune comes before all training, when no weight has shown its worth. Use "
            "more --epochs, or a later --prune_epoch.",
            flush=True,
        )
    if plan.all_override:
        shares = "1 to 10 %" if plan.overlay == "auto" else f"{100 * float(plan.overlay):.3g}%"
        print(
            f"Each task overrides {shares} of the packed weights; none of them is taken.",
            flush=True,
        )
        return
    if plan.claim_ratio < 1.0 or any(isinstance(x, packnet_tf.Auto) for x in prunes.values()):
        return
    ratios = [ratio for task, ratio in prunes.items() if overlays[task] is None]
    shares = planned(ratios, _free(plan, net), _seen_before(plan, net) if ratios else None)
    first = len(net.tasks) + (coming_base(net) is not None) + 1
    if ratios:
        print(plan_table(shares, first), flush=True)
    others = ", ".join(task for task in prunes if overlays[task] is not None)
    if others:
        print(
            f"Few weights will be free for {others}: to override {SHARE:.0%} of all with values of "
            "their own.",
            flush=True,
        )
    for sentence in too_little(shares, first):
        print(f"WARNING: {sentence}", flush=True)
