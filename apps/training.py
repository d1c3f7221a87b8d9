"""What `packnet train` does: one task, from a folder of images into a pack."""

import dataclasses
import json
import math
import pathlib
import shutil
import sys

import keras
import numpy as np

import packnet_tf
from packnet_tf.apps.folders import read_folder, readable
from packnet_tf.apps.pipeline import Pipeline
from packnet_tf.apps.trunks import load_trunk
from packnet_tf.atomic import replacing
from packnet_tf.tables import count_bytes, text_table

POLICIES = ("biases", "norms", "restart")
FEATURE_NORM = 30.0  # mean squared norm that features are scaled to, see `calibrated_head`


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of one task; the flags of `packnet train` by the same names."""

    pack: str
    task: str
    data: str
    trunk: str | None = None
    trunk_output: str | None = None
    trunk_weights: str = "imagenet"
    pixel_scale: str | None = None
    image_size: int | None = None
    biases: str | None = None
    norms: str | None = None
    restart: str | None = None
    epochs: int = 15
    prune_epoch: int = 10
    prune_ratio: float = 0.5
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.003
    retrain_learning_rate: float | None = None
    decay: bool = True
    flip: bool = False
    crop: bool = True
    validation_share: float = 0.1
    cache: bool = True
    jit_compile: str = "auto"
    seed: int = 0
    fresh: bool = False


@dataclasses.dataclass
class Report:
    """What came of a task; prints as a summary.

    Attributes:
        accuracy: by moment, "before the prune", "after it", "retrained" (validation images) and
            "test", 0 to 1; moments of an earlier, interrupted run are missing.
        unreadable: by path, why an image was skipped.
    """

    plan: Plan
    classes: list[str]
    images: dict[str, int]
    accuracy: dict[str, float]
    capacity: float
    pack_bytes: int
    unreadable: dict[str, str]

    def __str__(self) -> str:
        plan = self.plan
        rows = [
            ["classes", str(len(self.classes))],
            *([f"{split} images", f"{count:,}"] for split, count in self.images.items()),
            ["unreadable images, skipped", str(len(self.unreadable))],
            *([f"accuracy, {moment}", f"{value:.1%}"] for moment, value in self.accuracy.items()),
            ["capacity left", f"{self.capacity:.1%}"],
            [plan.pack, count_bytes(self.pack_bytes)],
        ]
        text = text_table([f"task {plan.task}", ""], rows)
        for reason in sorted(self.unreadable.values()):
            text += f"\nSkipped: {reason}"
        return text


def train(plan: Plan) -> Report:
    """Trains, prunes, retrains and commits one task, and saves the pack.

    Progress is kept in a folder beside the pack; the same plan continues from there.

    Raises:
        FileNotFoundError, ValueError: something is missing or does not fit; the message says what.
    """
    folder = read_folder(plan.data, plan.validation_share, plan.seed)
    keras.utils.set_random_seed(plan.seed)
    net = _open_pack(plan)
    net.check_name(plan.task)
    progress = _Progress(plan)
    print(f"Reading {sum(map(len, folder.files.values())):,} images ...", flush=True)
    folder = readable(folder)
    probe = net.add_task(plan.task, keras.layers.Dense(1))
    _check_shapes(probe.trunk, plan.pack)
    pipeline = Pipeline(
        probe.input_shape[1:], plan.batch_size, plan.seed, plan.cache, _pixel_range(net, plan.pack)
    )
    sets = {split: pipeline.evaluation(files) for split, files in folder.files.items()}
    training = pipeline.training(folder.files["train"], plan.flip, plan.crop)

    head = calibrated_head(probe.trunk, sets["train"], len(folder.classes))
    net.discard()
    model = net.add_task(plan.task, head, classes=folder.classes)
    model.compile(
        optimizer=_optimizer(plan),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=_jit_compile(plan.jit_compile),
    )
    packing = packnet_tf.PackNetCallback(
        plan.prune_ratio, plan.prune_epoch, validation_data=sets["validation"]
    )
    progress.begin()
    model.fit(
        training,
        epochs=plan.epochs,
        validation_data=sets["validation"],
        verbose=1 if sys.stdout.isatty() else 2,
        shuffle=False,  # the dataset shuffles
        callbacks=[*progress.callbacks(), *_rates(plan), packing],
    )
    moments = {"before the prune": "before", "after it": "after"}
    accuracy = {
        moment: packing.around_prune[key]["accuracy"]
        for moment, key in moments.items()
        if key in packing.around_prune
    }
    accuracy["retrained"] = _accuracy(model, sets["validation"])
    if "test" in sets:
        accuracy["test"] = _accuracy(model, sets["test"])
    net.save(plan.pack)
    progress.done()
    return Report(
        plan,
        folder.classes,
        {split: len(files) for split, files in folder.files.items()},
        accuracy,
        net.capacity().free,
        pathlib.Path(plan.pack).stat().st_size,
        folder.unreadable,
    )


def calibrated_head(trunk, images, classes: int) -> keras.Model:
    """A linear head on features scaled to a mean squared norm of `FEATURE_NORM`.

    Backbones differ a lot in the size of their features, and a linear layer on large ones is
    unstable at learning rates that move the trunk: its step is the rate times the squared norm.

    Args:
        trunk: the model that gives the features, as the task begins with it.
        images: dataset of (images, labels), of which the first 8 batches are looked at.
        classes: number of outputs.
    """
    features = [keras.ops.convert_to_numpy(trunk(batch)) for batch, _ in images.take(8)]
    norm = float(np.mean(np.sum(np.square(np.concatenate(features)), axis=-1)))
    scale = math.sqrt(FEATURE_NORM / norm) if norm > 0 else 1.0
    width = features[0].shape[-1]
    return keras.Sequential(
        [keras.Input((width,)), keras.layers.Rescaling(scale), keras.layers.Dense(classes)],
        name="head",
    )


def cosine(epoch: int, epochs: int, rate: float) -> float:
    """The rate of an epoch: from `rate` down to a tenth of it, along half a cosine."""
    share = epoch / max(1, epochs - 1)
    return rate * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def _rates(plan: Plan) -> list:
    """The learning rate of every epoch: two phases, each with its own rate."""
    retrain = plan.retrain_learning_rate
    retrain = plan.learning_rate / 10 if retrain is None else retrain

    def rate(epoch, _):
        start, end, first = 0, plan.prune_epoch, plan.learning_rate
        if epoch >= plan.prune_epoch:
            start, end, first = plan.prune_epoch, plan.epochs, retrain
        return cosine(epoch - start, end - start, first) if plan.decay else first

    return [keras.callbacks.LearningRateScheduler(rate)]


def _optimizer(plan: Plan):
    make = {
        "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    return make[plan.optimizer](plan.learning_rate)


def _jit_compile(choice: str) -> bool:
    """Whether to compile with XLA: on CPUs it makes convolutions slower, so "auto" needs a GPU."""
    if choice != "auto":
        return choice == "on"
    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


def _accuracy(model, data) -> float:
    return float(model.evaluate(data, verbose=0, return_dict=True)["accuracy"])


def _open_pack(plan: Plan) -> packnet_tf.PackNet:
    path = pathlib.Path(plan.pack)
    if path.exists():
        net = packnet_tf.load(path)
        if plan.task in net.tasks:
            raise ValueError(
                f"The pack '{path}' has a task '{plan.task}' already. Choose another name for the "
                "new task."
            )
        _check_policy(net, plan)
        return net
    if not plan.trunk:
        raise ValueError(
            f"There is no pack '{path}' yet, and no trunk to make it from. Add --trunk=FILE.keras "
            "or --trunk=MobileNetV2 (any model of keras.applications)."
        )
    trunk = load_trunk(
        plan.trunk, plan.image_size, plan.trunk_output, plan.pixel_scale, plan.trunk_weights
    )
    chosen = {name: getattr(plan, name) for name in POLICIES if getattr(plan, name) is not None}
    net = packnet_tf.PackNet(trunk, **chosen)
    net.notes["pixel_range"] = "0,255"
    return net


def _check_policy(net, plan: Plan) -> None:
    for name in POLICIES:
        wanted, has = getattr(plan, name), getattr(net.policy, name)
        if wanted not in (None, has):
            raise ValueError(
                f"The pack '{plan.pack}' was made with --{name}={has}, which holds for all its "
                f"tasks; this command says --{name}={wanted}. Leave --{name} out, or make a new "
                "pack."
            )


def _check_shapes(trunk, pack: str) -> None:
    """Refuses a pack made in Python whose trunk does not take images, or gives no features."""
    shape, features = trunk.input_shape, trunk.output_shape
    images = isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]
    if not (images and shape[-1] in (1, 3) and isinstance(features, tuple) and len(features) == 2):
        raise ValueError(
            f"The trunk of '{pack}' takes {shape} and gives {features}; expected images (batch, "
            "height, width, 3 or 1) and one feature vector each (batch, n). Train its tasks in "
            "Python, with net.add_task and fit."
        )


def _pixel_range(net, pack: str) -> tuple[float, float]:
    try:
        low, high = map(float, net.notes.get("pixel_range", "").split(","))
    except ValueError:
        raise ValueError(
            f"The pack '{pack}' does not say which pixel values its trunk takes. Open it with "
            'packnet_tf.load, set net.notes["pixel_range"] = "0,255" (or "0,1"), and save it.'
        ) from None
    return low, high


class _Progress:
    """The folder beside a pack where an interrupted task is kept."""

    def __init__(self, plan: Plan):
        self._folder = pathlib.Path(f"{plan.pack}.progress") / plan.task
        self._settings = {**dataclasses.asdict(plan), "pack": None, "fresh": None}
        self._note = self._folder / "settings.json"
        if plan.fresh:
            self.done()
        if self._note.exists():
            before = json.loads(self._note.read_text(encoding="utf-8"))
            changed = [n for n, value in self._settings.items() if value != before.get(n)]
            if changed:
                name = changed[0]
                raise ValueError(
                    f"An interrupted run of task '{plan.task}' had --{name}={before.get(name)}, "
                    f"this one has --{name}={self._settings[name]}. Repeat the old command to "
                    "continue it, or add --fresh to start over."
                )
            print(f"Continuing the interrupted run in '{self._folder}'.", flush=True)

    def begin(self) -> None:
        """Notes the settings: from here on there is something to continue."""
        with replacing(self._note) as temporary:
            temporary.write_text(json.dumps(self._settings), encoding="utf-8")

    def callbacks(self) -> list:
        # Kept until the pack is saved: a crash between the last epoch and that loses nothing.
        backup = self._folder / "backup"
        return [keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False)]

    def done(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        parent = self._folder.parent
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
