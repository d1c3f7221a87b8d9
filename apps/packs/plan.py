"""The settings of `packnet train`, from which `research.settings` derives `packnet compare`'s."""

import dataclasses
import os
import pathlib

from packnet_tf.apps.images.pixel_scales import SCALES
from packnet_tf.apps.packs.overlay import overlay_setting
from packnet_tf.apps.settings import setting
from packnet_tf.packing.pruning import check_ratio
from packnet_tf.planning import usual_prune_epoch

BASE = "base"  # the default name, and the key of the note that a new pack is to get a base
WAYS = ("ratio", "auto", "equal_shares")  # values of `prune` other than a list of ratios


def logs_folder(pack: str | pathlib.Path) -> pathlib.Path:
    """Returns the folder beside a pack for the measurements of training, a folder per task."""
    return _beside(pack, ".runs")


def progress_folder(pack: str | pathlib.Path) -> pathlib.Path:
    """Returns the folder beside a pack from which an interrupted run continues."""
    return _beside(pack, ".progress")


def _beside(pack: str | pathlib.Path, ending: str) -> pathlib.Path:
    if os.path.islink(pack):  # the same folder for all names of a pack
        pack = os.path.realpath(pack)
    return pathlib.Path(f"{pack}{ending}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning:
    """The training settings that both commands share."""

    epochs: int = setting(15, "All epochs, those after the prune included.", least=1)
    prune_epoch: int = setting(
        None,  # `Plan` computes it
        "Prune by the start of this epoch, and retrain from there on; default two thirds of "
        "--epochs.",
        least=0,
    )
    batch_size: int = setting(32, "Images per step.", least=1)
    learning_rate: float = setting(0.003, "At the start of training; see --scale_rate.", least=0)
    retrain_learning_rate: float | None = setting(
        None,
        "Rate after the prune; default a tenth of --learning_rate, all of it with overlays (SGD: "
        "twice).",
        least=0,
    )
    optimizer: str = setting(
        "auto",
        "auto: adam for tasks beside an adopted trunk, which train few weights, and for tasks with "
        "overlays; sgd for others. SGD has momentum 0.9.",
        choices=("auto", "sgd", "adam", "adamw"),
    )
    flip: bool = setting(False, "Augment by mirroring left to right.")
    crop: bool = setting(True, "Augment by padding and random crops.")
    validation_share: float = setting(
        0.1,
        "Share of the training images to validate on if there is no validation folder.",
        least=0.001,
        most=0.9,
    )
    cache: bool | None = setting(
        None, "Keep decoded images in memory; default: if they take at most half of what is free."
    )

    @property
    def rate_after(self) -> float:
        """The learning rate of epoch `prune_epoch`."""
        given = self.retrain_learning_rate
        return self.learning_rate / 10 if given is None else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Learning):
    """The settings of `packnet train`, one flag each.

    `tasks` are pairs (task, folder), packed in this order, in place of `task` and `data`. For
    `adopt` see `opening.open_pack`, for `reuse` `base.reused`, for `gradual` `rates.pruning`, and
    for `scale_rate` `rates.factors`, and for `overlay` `overlay.overlay_of`.

    Raises:
        ValueError: some settings contradict each other.
    """

    pack: str = setting(dataclasses.MISSING, "The pack, a .keras file; made if missing.")
    task: str | None = setting(None, "Name of the new task.")
    data: str | None = setting(None, "Folder of the task's images.")
    tasks: tuple[tuple[str, str], ...] = setting(
        (), "Instead of --task and --data, several: NAME:DIR,NAME:DIR."
    )
    trunk: str | None = setting(
        None,
        "For a new pack: a .keras model; the name of a keras.applications model (MobileNetV2); or "
        "a preset of KerasHub: its name, hf://..., kaggle://..., or a folder that "
        "backbone.save_to_preset wrote.",
    )
    trunk_output: str | None = setting(
        None,
        "For a new pack: the layer whose output is the features, to leave out the model's own "
        "head.",
    )
    trunk_weights: str = setting(
        "imagenet",
        "For a new pack of a keras.applications model: imagenet, none, or a path. For one of a "
        "preset: none, or as it comes.",
    )
    pixel_scale: str | None = setting(
        None,
        "For a new pack: the pixel values that the trunk takes: unit 0 to 1, bytes 0 to 255, "
        "symmetric -1 to 1, torch or caffe as for ImageNet models of that framework. Detected for "
        "models of keras.applications, also in files, for presets with an image converter, and for "
        "networks that scale pixels themselves; default for others: unit.",
        choices=SCALES,
    )
    image_size: int | None = setting(None, "For a new pack: height and width in pixels.", least=8)
    biases: str | None = setting(
        None,
        "For a new pack: biases train with the first task (shared, the default) or per task.",
        choices=("shared", "per_task"),
    )
    norms: str | None = setting(
        None,
        "For a new pack: the same for normalisation layers; default per_task.",
        choices=("shared", "per_task"),
    )
    restart: str | None = setting(
        None,
        "For a new pack: what freed weights restart from; default zero beside an adopted trunk and "
        "from random weights, else trunk, the values it came with.",
        choices=("trunk", "zero", "fresh"),
    )
    stem: str | None = setting(
        None,
        "For a new pack: the last layer that all tasks share, block_12_add for instance. The "
        "layers up to it come from the adopted trunk, or train with the first task, and a device "
        "computes them once for all tasks, see packnet export --multitask.",
    )
    precision: str | None = setting(
        None,
        "For a new pack: the dtype policy of its layers; weights stay float32. Default: float32, "
        "or that of a .keras trunk.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    adopt: str = setting(
        "auto",
        "For a new pack: the name to keep the pretrained trunk under, as a first task that all "
        "others see, pruned a little and repaired on images of the first --data. auto: base, where "
        "the trunk is pretrained. none: the first task may change the whole trunk.",
    )
    adopt_ratio: float = setting(
        0.3, "Fraction of the adopted trunk to release for tasks.", least=0, most=1
    )
    adopt_epochs: int = setting(2, "Epochs to repair the adopted trunk.", least=0)
    reuse: str = setting(
        "auto",
        "Earlier tasks whose weights a task sees: all, none, or names separated by commas. auto: "
        "the adopted trunk alone, so that no task depends on another; all if there is none.",
    )
    prune_ratio: float = setting(0.75, "Fraction of the claim to release, 0 to 1.", least=0, most=1)
    prune: str = setting(
        "ratio",
        "How much to prune: ratio (--prune_ratio), auto (as far as --max_drop allows), "
        "equal_shares, or ratios, one per task: 0.5,0.75,0.",
    )
    gradual: bool = setting(
        True,
        "Prune in small steps, from an eighth to three quarters of the way to --prune_epoch, which "
        "keeps more accuracy; --nogradual prunes once, at --prune_epoch, as in the paper.",
    )
    scale_rate: bool = setting(
        True,
        "With norms per task: raise both rates of a task that trains a part of the weights, so "
        "that it learns as fast as a whole network: with SGD in inverse proportion to that part, "
        "at most to twice; with others to twice beside an adopted trunk. A random head starts with "
        "weights that are smaller by the same factor.",
    )
    max_drop: float = setting(
        0.01,
        "For --prune=auto and --overlay=auto: largest accepted drop of validation accuracy; 0.01 "
        "is one point.",
        least=0,
        most=1,
    )
    claim_ratio: float = setting(
        1.0, "Fraction of the free weights a task claims.", least=0, most=1
    )
    overlay: str = setting(
        "when_full",
        "Which tasks override weights of others with values that they alone see, and take no free "
        "weights. when_full: those that would own less than 2 % of the packed weights override "
        "5 %, and so do those that end below their linear head with weights of their own. 0.05: "
        "all tasks of this command override 5 %. auto: they override the smallest of 10, 5, 2 and "
        "1 % that is within --max_drop of the best. none: no task. An overlay is chosen after a "
        "fifth of --epochs, whatever --prune_epoch is.",
    )
    class_weight: str | None = setting(
        None,
        "balanced: the fewer images a class has, the more each of them counts in training, so that "
        "all classes count alike. Accuracies count every image alike.",
        choices=("balanced",),
    )
    decay: bool = setting(True, "Lower both rates to a tenth, along a cosine.")
    accumulation: int = setting(1, "Batches whose gradients make one update.", least=1)
    jit_compile: str = setting("auto", "XLA; auto: with a GPU only.", choices=("auto", "on", "off"))
    seed: int = setting(0, "Seed of weights, shuffling and augmentation.")
    fresh: bool = setting(False, "Start over instead of continuing an interrupted run.")

    def __post_init__(self) -> None:
        if self.prune_epoch is None:
            object.__setattr__(self, "prune_epoch", usual_prune_epoch(self.epochs))
        if self.prune_epoch >= self.epochs:
            raise ValueError(
                f"--prune_epoch={self.prune_epoch} is not below --epochs={self.epochs}: the task "
                "would never be pruned. --epochs counts the epochs after the prune too."
            )
        if not self.pack.endswith(".keras"):
            raise ValueError(
                f"--pack={self.pack} is to be a .keras file; write --pack={self.pack}.keras."
            )
        if self.all_override:
            self._check_overlay()
        if self.prune != "ratio" and self.prune_ratio != self._default("prune_ratio"):
            raise ValueError(
                f"--prune_ratio={self.prune_ratio:g} and --prune={self.prune} both say how much to "
                f"prune. Leave out --prune to release {self.prune_ratio:g} of each task's claim, "
                "or --prune_ratio to prune as --prune says."
            )
        ratios, count = self.ratios(), len(self.pairs())
        if ratios is not None and len(ratios) != count:
            raise ValueError(f"--prune has {len(ratios)} ratios for {count} tasks; give one each.")

    @property
    def all_override(self) -> bool:
        """Whether all tasks override weights and own none."""
        return overlay_setting(self.overlay) is not None

    def _check_overlay(self) -> None:
        """Refuses settings of the tasks that own weights."""
        for name in ("claim_ratio", "prune", "prune_ratio", "gradual"):
            if getattr(self, name) != self._default(name):
                raise ValueError(
                    f"--{name} is of tasks that claim free weights, of which tasks with "
                    f"--overlay={self.overlay} take none. Leave out one of the two."
                )

    def _default(self, name: str) -> object:
        return type(self).__dataclass_fields__[name].default

    def pairs(self) -> list[tuple[str, str]]:
        """Returns the tasks and their folders, in order."""
        return list(self.tasks) or [(self.task, self.data)]

    def ratios(self) -> list[float] | None:
        """Returns the ratios that `prune` lists; None if it is one of `WAYS`."""
        if self.prune in WAYS:
            return None
        try:
            ratios = [float(ratio) for ratio in self.prune.split(",")]
        except ValueError:
            raise ValueError(
                f"--prune={self.prune} is none of the ways to prune; write --prune=auto, "
                "--prune=equal_shares, or ratios, --prune=0.5,0.75,0."
            ) from None
        return [check_ratio(ratio) for ratio in ratios]
