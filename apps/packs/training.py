"""What `packnet train` does: tasks, from folders of images into a pack."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

import packnet_tf
from packnet_tf.apps.images.folders import Folder, read_folders, readable, shuffled
from packnet_tf.apps.images.pipeline import Pipeline
from packnet_tf.apps.packs import rates
from packnet_tf.apps.packs.base import BASE_IMAGES, adopt, coming_base, reused
from packnet_tf.apps.packs.beginning import Images, begin, keep_linear_head
from packnet_tf.apps.packs.opening import check_shapes, open_pack, pixel_range
from packnet_tf.apps.packs.progress_folder import ProgressFolder
from packnet_tf.backend.distribution import is_chief, strategy_of
from packnet_tf.planning import plan as planned
from packnet_tf.planning import plan_table, too_little
from packnet_tf.reporting.tables import count_bytes, text_table
from packnet_tf.tasks.reuse import seen_numbers
from packnet_tf.trainer.history import MOMENTS
from packnet_tf.trainer.run import HISTORY


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of a command; the flags of `packnet train` by the same names.

    Attributes:
        task, data: one task and its folder; or, instead,
        tasks: pairs (task, folder), packed in this order.
        adopt: "auto", "none", or a name, see `packs.open_pack`.
        reuse: see `base.reused`.
        optimizer: "auto" is "adam" beside an adopted trunk, else "sgd".
        prune: "ratio" (`prune_ratio`), "auto", "equal_shares", or ratios with commas between them,
            one per task.
        gradual: whether to come to the ratio a little at a time, see `rates.pruning`.
        scale_rate: whether tasks that train less learn at a higher rate, see `rates.factors`, from
            heads that are as much smaller.
    """

    pack: str
    task: str | None = None
    data: str | None = None
    tasks: tuple[tuple[str, str], ...] = ()
    trunk: str | None = None
    trunk_output: str | None = None
    trunk_weights: str = "imagenet"
    pixel_scale: str | None = None
    image_size: int | None = None
    biases: str | None = None
    norms: str | None = None
    restart: str | None = None
    precision: str | None = None
    adopt: str = "auto"
    adopt_ratio: float = 0.3
    adopt_epochs: int = 2
    reuse: str = "auto"
    epochs: int = 15
    prune_epoch: int = 10
    prune_ratio: float = 0.75
    prune: str = "ratio"
    gradual: bool = True
    scale_rate: bool = True
    max_drop: float = 0.01
    claim_ratio: float = 1.0
    batch_size: int = 32
    optimizer: str = "auto"
    learning_rate: float = 0.003
    retrain_learning_rate: float | None = None
    decay: bool = True
    accumulation: int = 1
    flip: bool = False
    crop: bool = True
    validation_share: float = 0.1
    cache: bool = True
    jit_compile: str = "auto"
    seed: int = 0
    fresh: bool = False

    def pairs(self) -> list[tuple[str, str]]:
        """The tasks and their folders, in order."""
        return list(self.tasks) or [(self.task, self.data)]


@dataclasses.dataclass
class Report:
    """What came of a task; prints as a summary.

    Attributes:
        accuracy: by moment, "of a linear head" where the trunk was trained, "before the prune",
            "after it", "retrained" (validation images) and "test", 0 to 1.
        prune_ratio: share of its claim that the task released.
        unreadable: by path, why an image was skipped.
    """

    task: str
    pack: str
    classes: list[str]
    images: dict[str, int]
    accuracy: dict[str, float]
    prune_ratio: float
    capacity: float
    pack_bytes: int
    unreadable: dict[str, str]

    def __str__(self) -> str:
        rows = [
            ["classes", str(len(self.classes))],
            *([f"{split} images", f"{count:,}"] for split, count in self.images.items()),
            ["unreadable images, skipped", str(len(self.unreadable))],
            *([f"accuracy, {moment}", f"{value:.1%}"] for moment, value in self.accuracy.items()),
            ["released", f"{self.prune_ratio:.1%}"],
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

    Progress is kept in a folder beside the pack; the same plan continues from there.

    Args:
        plan: what to do.
        folders: the images of its tasks, where they have been listed already.

    Returns:
        A report per task; none in a process that works for another one, which has them.

    Raises:
        FileNotFoundError, ValueError: something is missing or does not fit; the message says what.
    """
    pairs = plan.pairs()
    folders = folders or read_folders(pairs, plan.validation_share, plan.seed)
    if len(folders) < len(pairs) or plan.adopt in folders:
        raise ValueError("Two tasks of this command have the same name. Give each one its own.")
    keras.utils.set_random_seed(plan.seed)
    progress = ProgressFolder(plan.pack, dataclasses.asdict(plan), plan.fresh)
    net = open_pack(plan)
    progress.continue_with(net)
    for task, _ in pairs:
        if task in net.tasks and task not in progress.history():
            raise ValueError(
                f"The pack '{plan.pack}' has a task '{task}' already. Choose another name for the "
                "new task."
            )
        if task not in net.tasks:
            net.state.check_name(task)
    if coming_base(net):
        net.state.check_name(coming_base(net))
    _check_reuse(plan, net)
    ways = _ways(plan, len(pairs))
    _say_plan(plan, net, ways)
    chief = is_chief(strategy_of(net))
    if chief:
        progress.begin()
    reports = []
    for (task, _), way in zip(pairs, ways, strict=True):
        reports.append(_train(plan, progress, net, task, readable(folders[task]), way))
        if chief:
            net.save(plan.pack)
            reports[-1].pack_bytes = pathlib.Path(plan.pack).stat().st_size
    if not chief:
        return []
    progress.done()
    return reports


def _check_reuse(plan: Plan, net) -> None:
    """Refuses names in --reuse that will be of no earlier task, before hours of work."""
    known = list(net.tasks) or [name for name in [coming_base(net)] if name]
    for task, _ in plan.pairs():
        if task not in known:
            seen_numbers(reused(net, plan.reuse), known)
            known.append(task)


def _train(plan: Plan, progress, net, task: str, folder: Folder, way) -> Report:
    """One task of a plan; `way` is its prune, see `PackTrainer`."""
    if task in net.tasks:  # the command was interrupted after it
        entry = progress.history()[task]
    else:
        entry = _pack(plan, progress, net, task, folder, way)
    moments = {**MOMENTS, "test": "test"}
    floor = net.results(task).get("linear_head")
    found = {} if floor is None else {"of a linear head": floor}
    return Report(
        task,
        plan.pack,
        folder.classes,
        {split: len(files) for split, files in folder.files.items()},
        found | {moment: entry[key]["accuracy"] for moment, key in moments.items() if entry[key]},
        entry["prune_ratio"],
        entry["capacity"],
        0,
        folder.unreadable,
    )


def _pack(plan: Plan, progress, net, task: str, folder: Folder, way) -> dict:
    """Trains and commits a task; returns what its history says."""
    # Whatever was done before in this process: a command that continues here draws the same head.
    keras.utils.set_random_seed(plan.seed + len(net.tasks))
    check_shapes(net.state.trunk, plan.pack)
    pipeline = Pipeline(
        net.state.trunk.input_shape[1:],
        plan.batch_size,
        plan.seed,
        plan.cache,
        pixel_range(net, plan.pack),
    )
    # Shuffled: batches that are normalised must not be of one class each.
    files = {split: shuffled(files, plan.seed) for split, files in folder.files.items()}
    sets = {split: pipeline.evaluation(found) for split, found in files.items()}
    training = pipeline.training(folder.files["train"], plan.flip, plan.crop)
    if coming_base(net):
        images = pipeline.evaluation(files["train"][:BASE_IMAGES])
        adopt(net, coming_base(net), images, plan.adopt_ratio, plan.adopt_epochs)
        net.save(progress.pack)
    optimizer = plan.optimizer
    if optimizer == "auto":
        optimizer = "adam" if net.base else "sgd"
    factors = rates.factors(net, optimizer, way, plan.gradual, plan.claim_ratio, plan.scale_rate)
    # Not the same dataset as the training's, whose order a resumed run must find again.
    images = Images(
        sets["train"],
        pipeline.training(folder.files["train"], plan.flip, plan.crop),
        sets["validation"],
        len(folder.classes),
    )
    new_optimizer = rates.optimizer(optimizer, plan.accumulation)
    reuse = reused(net, plan.reuse)
    begun = begin(
        net, task, images, new_optimizer, plan.learning_rate * factors[0], factors[0],
        reuse, progress.chosen(task),
    )  # fmt: skip
    chief = is_chief(strategy_of(net))
    if chief:
        progress.choose(task, begun.statistics)
    factors = tuple(factor * begun.rate_factor for factor in factors)
    steps = math.ceil(len(folder.files["train"]) / plan.batch_size)
    trainer = packnet_tf.PackTrainer(
        net,
        new_optimizer,
        epochs=plan.prune_epoch,
        retrain_epochs=plan.epochs - plan.prune_epoch,
        prune=rates.pruning(way, plan.prune_epoch, steps, plan.gradual),
        directory=progress.folder,
        batch_size=plan.batch_size,
        jit_compile={"on": True, "off": False}.get(plan.jit_compile, "auto"),
        seed=plan.seed,
        **_rates(plan, factors),
    )
    job = packnet_tf.Task(
        task, begun.head, training, sets["validation"], sets.get("test"), folder.classes,
        plan.claim_ratio, begun.statistics, reuse, begun.reference,
    )  # fmt: skip
    history = trainer.fit([job])
    if net.results(task).get("retrained", 1.0) < begun.kept_head:
        keep_floor(net, task, images, folder.classes, reuse, sets.get("test"), history[task])
        if chief:
            history.write(progress.folder / HISTORY)
            net.save(progress.pack)
    return history[task]


def keep_floor(
    net, task: str, images: Images, classes: list[str], reuse, test, entry: dict
) -> None:
    """Gives a task that came out below a linear head that head, and says so."""
    trained = net.results(task)
    reached = keep_linear_head(net, task, images, classes, reuse)
    print(
        f"{task}: training ended at {trained['retrained']:.1%} of validation images, below the "
        f"linear head, so the task is that head on the pack's frozen weights, {reached:.1%}, and "
        "takes none of the free ones. For more, see docs/low_accuracy.md.",
        flush=True,
    )
    entry["retrained"] = {"accuracy": reached}
    if test is not None:
        entry["test"] = {"accuracy": accuracy_on(net.task_model(task), test)}
    entry |= {"prune_ratio": 1.0, "capacity": net.capacity().free, "linear_head_kept": True}
    found = {m: entry[m]["accuracy"] for m in ("retrained", "test") if entry[m]}
    net.note_results(task, **{**trained, **found})


def accuracy_on(model, data) -> float:
    """The share of a dataset's examples that a model gets right."""
    labels = np.concatenate([labels.numpy() for _, labels in data])
    return float(np.mean(model.predict(data, verbose=0).argmax(-1) == labels))


def _rates(plan: Plan, factors: tuple[float, float]) -> dict:
    """The learning rates of the two phases of a task, as `PackTrainer` takes them."""
    first, then = plan.learning_rate, plan.retrain_learning_rate
    first, then = first * factors[0], (first / 10 if then is None else then) * factors[1]
    decay = "cosine" if plan.decay else "none"
    return {
        "learning_rate": rates.decayed(first, plan.prune_epoch, decay),
        "retrain_learning_rate": rates.decayed(then, plan.epochs - plan.prune_epoch, decay),
    }


def _ways(plan: Plan, count: int) -> list:
    """What each of the tasks prunes by."""
    named = {
        "ratio": [plan.prune_ratio] * count,
        "auto": [packnet_tf.Auto(plan.max_drop)] * count,
        "equal_shares": packnet_tf.equal_shares(count),
    }
    if plan.prune in named:
        return named[plan.prune]
    return [float(ratio) for ratio in plan.prune.split(",")]


def _say_plan(plan: Plan, net, ways: list) -> None:
    """Prints what every task will get, and warns where that is less than it can live with."""
    if plan.claim_ratio < 1.0 or any(isinstance(way, packnet_tf.Auto) for way in ways):
        return
    coming = coming_base(net) is not None
    free = plan.adopt_ratio if coming else net.capacity().free
    shares, first = planned(ways, free), len(net.tasks) + coming + 1
    print(plan_table(shares, first), flush=True)
    for sentence in too_little(shares, first):
        print(f"WARNING: {sentence}", flush=True)
